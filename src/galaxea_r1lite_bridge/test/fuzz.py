"""A long run of the generated histories, on all cores: `make fuzz`, or `make fuzz SECONDS=600`.

A history that breaks a rule is shortened and written as a program that lives through it again.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import count
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .histories import generate, minimised, run
from .rules import RULES, BrokenRuleError

TICKS = 1_000_000
_MOST_FOUND = 5  # rules broken, after which there is no use in going on
_PROGRAM = '''"""{broken}

Found by `make fuzz`, seed {seed}. Run it with: {python} {path}
"""
import json
import sys

sys.path.insert(0, "{root}")
from src.galaxea_r1lite_bridge.test.histories import History, run

run(History(**json.loads("""
{history}
""")))
print("no rule was broken")
'''


def live(seed):
    """Ticks, what was reached, and the rule that was broken, if any, with the shortened history."""
    reached, history = Counter(), generate(seed, takeover=seed % 2 == 1)
    try:
        return seed, run(history, reached), reached, None, None
    except BrokenRuleError as broken:
        shorter = minimised(history, broken.rule)
        try:
            run(shorter)
        except BrokenRuleError as again:
            broken = again
        return seed, len(history.events), reached, str(broken), shorter


def write(folder, seed, broken, history):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rule_{broken.split(' ')[0]}_seed_{seed}.py"
    events = ",\n".join(json.dumps(event) for event in history.events)
    plain = json.dumps({**vars(history), "events": None})
    text = plain.replace('"events": null', f'"events": [\n{events}]')
    path.write_text(
        _PROGRAM.format(broken=broken, seed=seed, python=sys.executable, path=path, root=Path.cwd(), history=text)
    )
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="how long, instead of 1,000,000 control ticks")
    parser.add_argument("--ticks", type=int, default=TICKS, help="control ticks")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000 % 10**9, help="first seed")
    parser.add_argument("--output", type=Path, default=Path("output/fuzz"), help="where reproductions are written")
    given = parser.parse_args()
    begin, ticks, runs, reached, found = time.monotonic(), 0, 0, Counter(), {}
    print(f"seeds from {given.seed} on, {os.cpu_count()} processes, {len(RULES)} rules")
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn()
    with ProcessPoolExecutor() as pool, Progress(*columns) as progress:
        task = progress.add_task("s" if given.seconds else "control ticks", total=given.seconds or given.ticks)
        seeds = count(given.seed)
        pending = {pool.submit(live, next(seeds)) for _ in range(2 * (os.cpu_count() or 1))}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for seed, lived, seen, broken, history in (future.result() for future in done):
                ticks, runs = ticks + lived, runs + 1
                reached.update(seen)
                if broken is not None and (rule := broken.split(":")[0]) not in found:
                    found[rule] = write(given.output, seed, broken, history)
                    progress.console.print(f"seed {seed}: {broken}\n  {found[rule]}", markup=False)
            elapsed = time.monotonic() - begin
            progress.update(task, completed=elapsed if given.seconds else ticks)
            over = elapsed >= given.seconds if given.seconds else ticks >= given.ticks
            if not over and len(found) < _MOST_FOUND:
                pending |= {pool.submit(live, next(seeds)) for _ in done}
    last = next(seeds) - 1
    print(f"{ticks:,} control ticks in {runs:,} histories (seeds {given.seed} to {last}), {len(found)} rules broken")
    print("reached: " + ", ".join(f"{name} {times:,}" for name, times in sorted(reached.items()) if name))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
