"""`fastwam eval-sim`: how often a policy does a task in the simulator, through the bridge's own state machine.

Everything runs in one process, faster than real time and with a fixed latency, so that equal seeds give equal results.
What the ROS nodes add is left out; `--nodes` runs the same episodes through them.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from rich.table import Table

from fastwam_policy.common.files import write_json
from fastwam_policy.common.parallel import EVERY_CORE, Where, map_tasks
from fastwam_policy.common.progress import counted
from fastwam_policy.common.settings import Uncompared, changes
from fastwam_policy.common.statistics import quartiles, success_interval
from fastwam_policy.data.video import write_video
from fastwam_policy.policies.base import Pixels, Policy, PolicyInfo
from fastwam_policy.policies.loading import load_policy, policy_key
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.simulation.episode import CAMERA_FPS, EpisodeResult, EpisodeSettings, run_episode
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim import contacts
from galaxea_r1lite_sim.camera import Cameras, not_rendered
from galaxea_r1lite_sim.tasks import TASKS

_OUTCOMES = TypeAdapter(list[EpisodeResult])  # fields of other versions are ignored


def evaluate(
    source: str,
    seeds: Sequence[int],
    settings: EpisodeSettings,
    where: Where = EVERY_CORE,
    videos: Path | None = None,
    mode: str = "",
    figures: Path | None = None,
    robot: Path | None = None,
    denoise_steps: int = 0,
) -> dict[str, Any]:
    """Run an episode for each seed, in parallel; with `videos`, write one of each failure into that folder.

    `source` is any that load_policy takes. `mode` is a way to infer, for a bundle whose variant has several;
    `denoise_steps`, 0 for its own, are of a bundle.
    `robot` is another robot file than the installed one. `figures` and what is returned are as in :func:`gather`.

    Raises:
        ConfigError: the policy cannot be loaded, does not fit the robot, or cannot do what the settings ask for.
    """
    # A bad policy is refused here, not in a worker.
    policy = ready_policy(source, mode, settings.instruction, denoise_steps)
    config = RobotConfig.load(robot)
    check_robot(policy.info, config, source)
    check_rendered(policy.info, config, source)
    if settings.blending == "rtc" and "realtime_chunking" not in policy.info.abilities:
        raise ConfigError(f"{source}: blending rtc needs a policy that continues a running plan, and this one does not")

    def run(missing: Sequence[int]) -> Generator[EpisodeResult, None, None]:
        own = (settings, videos, mode, robot, denoise_steps)
        return map_tasks(_episode_of, [(source, seed, *own) for seed in missing], where)

    how = Evaluation(
        **asdict(settings), policy=result_key(policy, source), seeds=tuple(seeds), mode=mode, robot=config.digest(),
        denoise_steps=denoise_steps,
    )  # fmt: skip
    return gather(run, how, figures)


def check_rendered(info: PolicyInfo, robot: RobotConfig, source: str) -> None:
    """ConfigError where the policy needs a camera that the simulator cannot render."""
    if lines := not_rendered(robot, [camera.name for camera in info.cameras if camera.required]):
        raise ConfigError(f"{source} needs what is not there:\n  " + "\n  ".join(lines))


def result_key(policy: Policy, source: str) -> str:
    """What figures belong to: the policy; where it is not known which one it is, this evaluation alone."""
    return policy_key(policy.info, source) or f"{source}, {time.time():.3f}"


@dataclass(frozen=True, kw_only=True)
class Evaluation(EpisodeSettings):
    """How the figures of an evaluation came about.

    Attributes:
        policy: hashes of it, or what takes their place.
        seeds: of the episodes.
        mode: way to infer, for a bundle whose variant has several.
        nodes: whether they went through the nodes.
        robot: hash of what describes it.
        denoise_steps: of a bundle; 0 for its own number.
    """

    policy: str
    seeds: Uncompared[tuple[int, ...]]
    mode: str = ""
    nodes: bool = False
    robot: str = ""
    denoise_steps: int = 0


def gather(
    run: Callable[[Sequence[int]], Generator[EpisodeResult, None, None]], how: Evaluation, figures: Path | None
) -> dict[str, Any]:
    """Figures of the outcomes of `run(seeds)`, as :func:`summarise`, and `how` they came about.

    They are in the file `figures` from the first outcome on, as JSON; what it has already is not done again.
    """
    seeds, outcomes, about, hands = how.seeds, _known(figures, how), asdict(how), TASKS[how.task].hands
    done = {outcome.seed for outcome in outcomes}
    if done:
        print(f"{len(done)} of {len(seeds)} episodes are in {figures} already")
    missing = [seed for seed in seeds if seed not in done]
    if not missing:
        return {"how": about, **summarise(outcomes, hands)}
    with counted() as progress, closing(run(missing)) as arriving:
        task = progress.add_task("episodes", total=len(seeds), completed=len(done))
        for outcome in arriving:
            outcomes.append(outcome)
            outcomes.sort(key=lambda each: each.seed)
            if figures is not None:
                write_json(figures, {"how": about, **summarise(outcomes, hands)})
            successes = sum(outcome.success for outcome in outcomes)
            progress.update(task, advance=1, description=f"{successes} of {len(outcomes)} succeeded")
    return {"how": about, **summarise(outcomes, hands)}


def _known(figures: Path | None, how: Evaluation) -> list[EpisodeResult]:
    """Outcomes of `how.seeds` in a file of :func:`gather`; none where it is of another evaluation, which is printed."""
    try:
        known = json.loads(figures.read_text(encoding="utf-8")) if figures else {}
        about = known["how"]
        # As version 0.1 called it at first.
        outcomes = _OUTCOMES.validate_python([{"distance": o.get("corner_distance"), **o} for o in known["outcomes"]])
        if "bundle" in about:  # as version 0.1 called it
            about["policy"] = about.pop("bundle")
        changed = list(changes(about, how))
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if changed:
        print(f"{figures} is of another evaluation, and is replaced: {'; '.join(changed)}")
        return []
    return [outcome for outcome in outcomes if outcome.seed in how.seeds]


def summarise(outcomes: Sequence[EpisodeResult], hands: int = 2) -> dict[str, Any]:
    """Success with its Wilson interval (95 %), time to it, grasps, classes of failure, contacts of the robot.

    `hands` arms must take hold in the task.
    """
    done = [outcome for outcome in outcomes if outcome.success]
    times = [outcome.time for outcome in done]
    return {
        "episodes": len(outcomes),
        "success": len(done) / len(outcomes),
        "success_interval": success_interval(len(done), len(outcomes)),
        "time_mean": float(np.mean(times)) if times else None,
        "time_quartiles": quartiles(times),
        "grasped": float(np.mean([outcome.grasps >= hands for outcome in outcomes])),
        "distance_median": float(np.median([outcome.distance for outcome in outcomes])),
        "failures": dict(Counter(outcome.failure for outcome in outcomes if not outcome.success)),
        "inference_ms_median": float(np.median([outcome.inference_ms for outcome in outcomes])),
        "contacts": contacts.summarise([outcome.contacts for outcome in outcomes]),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def table(summary: dict[str, Any], title: str) -> Table:
    """The figures for a terminal."""
    low, high = summary["success_interval"]
    quartiles = summary["time_quartiles"]
    shown = Table(title=title, show_header=False)
    rows = {
        "success": f"{100 * summary['success']:.0f} % of {summary['episodes']} ({100 * low:.0f} to {100 * high:.0f} %)",
        "time to success": "never" if quartiles is None
        else f"mean {summary['time_mean']:.1f} s, quartiles {' / '.join(f'{value:.1f}' for value in quartiles)} s",
        "grasped": f"{100 * summary['grasped']:.0f} %",
        "distance at the end": f"{100 * summary['distance_median']:.1f} cm (median)",
        "failures": ", ".join(f"{name}: {count}" for name, count in summary["failures"].items()) or "none",
        **contacts.texts(summary["contacts"]),
        "inference": f"{summary['inference_ms_median']:.0f} ms (median)",
    }  # fmt: skip
    for name, text in rows.items():
        shown.add_row(name, text)
    return shown


@cache  # one for each worker process
def ready_policy(source: str, mode: str = "", instruction: str = "", denoise_steps: int = 0) -> Policy:
    """A policy that is ready for an instruction, empty for its default; `mode` is of one with several ways to infer.

    `denoise_steps` are of a bundle, 0 for its own number.

    Raises:
        ConfigError: it cannot be loaded, or does not know the instruction.
    """
    options = {"mode": mode, "denoise_steps": denoise_steps}
    policy = load_policy(source, {name: value for name, value in options.items() if value})
    policy.prepare(instruction or policy.info.default_instruction)
    return policy


def _episode_of(
    source: str, seed: int, settings: EpisodeSettings, videos: Path | None, mode: str, robot_file: Path | None,
    denoise_steps: int,
) -> EpisodeResult:  # fmt: skip
    robot, policy = RobotConfig.load(robot_file), ready_policy(source, mode, settings.instruction, denoise_steps)
    frames: list[Pixels] = []

    def keep(cameras: Cameras) -> None:
        frames.append(cameras.render(cameras.names[0]).copy())

    outcome = run_episode(policy, robot, seed, settings, keep if videos else lambda _: None)
    if videos and not outcome.success:
        videos.mkdir(parents=True, exist_ok=True)
        write_video(videos / f"seed_{seed}.mp4", frames, CAMERA_FPS)
    return outcome
