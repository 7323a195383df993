"""Let a policy fold a few towels in the simulator. You see a line with an interval, and a plot of each episode.

source scripts/env.sh
python examples/evaluate_and_plot.py bundles/towel_small 6 episodes.png
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from fastwam_policy.simulation.episode import EpisodeSettings
from fastwam_policy.simulation.evaluate import evaluate


def main(source: str, episodes: int, plot: Path) -> None:
    """Seeds 0, 1, …: training never uses them. Equal seeds give equal towels."""
    settings = EpisodeSettings(level="objects", latency=0.15, time_limit=20.0)
    found = evaluate(source, range(episodes), settings)

    low, high = found["success_interval"]
    text = f"{found['success']:.0%} of {episodes} folded (95 %: {low:.0%} to {high:.0%})"
    print(text)
    for outcome in found["outcomes"]:
        print(f"  seed {outcome['seed']}: {outcome['failure'] or 'folded'} after {outcome['time']:.1f} s")

    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    seeds, times = ([outcome[key] for outcome in found["outcomes"]] for key in ("seed", "time"))
    axis.bar(seeds, times, color=["tab:green" if outcome["success"] else "tab:red" for outcome in found["outcomes"]])
    axis.set(xlabel="seed", ylabel="time [s]", title=text)
    figure.savefig(plot)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/evaluate_and_plot.py POLICY EPISODES PLOT.png")
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
