"""`fastwam collect`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NoReturn

from fastwam_policy.common.arguments import (
    add_json,
    add_lerobot_version,
    add_policy,
    add_randomization,
    add_robot,
    add_task,
    add_workers,
    number,
    numbers,
    policy_source,
    sentence,
    write_figures,
)

NAME, GROUP = "collect", "data"
HELP = "episodes of a scripted expert in a simulator, as a LeRobot dataset: of our own, or of a benchmark's"
EXAMPLE = "./fastwam collect data/towel --episodes 20"
_NOISE = 0.015, 0.3  # our own simulator, and a benchmark
_OURS = {
    "task": None, "instruction": None, "randomization": "full", "height": 180, "takeover": False, "format": "v2.1",
    "robot": None,
}  # fmt: skip
"""Options of our own simulator only, with what they are where they are left out."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, help="dataset to write, or to continue")
    parser.add_argument("--episodes", type=number(int, least=1), default=500, help="in all (default 500)")
    parser.add_argument("--benchmark", choices=["libero"], help="whose expert, and in whose simulator")
    parser.add_argument("--suite", action="append", metavar="NAME", help="of --benchmark (default libero_object)")
    parser.add_argument("--tasks", type=numbers, metavar="LIST", help="of --suite, such as 0,3-5; all by default")
    add_task(parser)
    parser.add_argument("--instruction", type=sentence, help="of all episodes (default: the task's)")
    parser.add_argument(
        "--picture-every", type=number(int, least=1), metavar="N",
        help="with --benchmark: steps from one picture to the next, which is repeated until then (default 1)",
    )  # fmt: skip
    add_randomization(parser)
    parser.add_argument(
        "--noise", type=number(float, least=0, below=10),
        help="rad, of the executed targets (default 0.015); with --benchmark a share of their speed (default 0.3)",
    )  # fmt: skip
    parser.add_argument("--height", type=_height, default=_OURS["height"], help="of our 16:9 images (default 180)")
    parser.add_argument(
        "--first-seed", type=number(int, least=0, below=4_000_000_000), default=10_000,
        help="default 10000: evaluations use those below",
    )  # fmt: skip
    add_policy(parser, "--policy", default="", about="; it drives first, then the expert takes over (DAgger)")
    parser.add_argument(
        "--takeover", action="store_true",
        help="with --policy: it drives from the start, and the expert takes over where it stalls; both are recorded",
    )  # fmt: skip
    add_workers(parser)
    add_lerobot_version(parser)
    add_robot(parser)
    add_json(parser)


def _height(text: str) -> int:
    height = number(int, least=90, below=4097)(text)
    if height % 18:
        raise argparse.ArgumentTypeError(f"must be a multiple of 18, for whole 16:9 pixels, got {text}")
    return height


def run(given: argparse.Namespace) -> int:
    """Write the episodes that are missing."""
    source = policy_source(given.policy) if given.policy else ""
    failures = (_of_benchmark if given.benchmark else _of_ours)(given, source)
    episodes = json.loads((given.folder / "meta" / "info.json").read_text())["total_episodes"]  # or more than asked for
    print(f"{given.folder}: {episodes} episodes; the expert failed on {failures} other seeds")
    write_figures(given.json, {"folder": str(given.folder), "episodes": episodes, "failed_seeds": failures})
    return 0


def _of_ours(given: argparse.Namespace, source: str) -> int:
    from fastwam_policy.common.processes import require_simulator

    if given.suite or given.tasks or given.picture_every:
        _refuse("--suite, --tasks and --picture-every need --benchmark")
    require_simulator()
    from fastwam_policy.simulation.collect import CollectSettings, collect
    from galaxea_r1lite_sim.tasks import TASKS, TaskName

    task: TaskName = given.task or "fold"
    settings = CollectSettings(
        given.instruction or TASKS[task].instruction,
        given.randomization,
        _NOISE[0] if given.noise is None else given.noise,
        given.height,
        given.first_seed,
        given.format,
        source,
        takeover=given.takeover,
        simulated=task,
    )
    return collect(given.folder, given.episodes, settings, given.where, given.robot)


def _of_benchmark(given: argparse.Namespace, source: str) -> int:
    from fastwam_policy.benchmarks.collect import LIBERO, collect
    from fastwam_policy.cli.benchmark import chosen_tasks

    if own := [name for name, value in _OURS.items() if getattr(given, name) != value]:
        _refuse(f"--{own[0]} is for our own simulator, not for {given.benchmark}")
    given.suite = given.suite or ["libero_object"]
    noise = _NOISE[1] if given.noise is None else given.noise
    tasks = chosen_tasks(LIBERO, given)
    return collect(
        given.folder, given.episodes, tasks, noise, given.first_seed, source, given.where, given.picture_every or 1
    )


def _refuse(text: str) -> NoReturn:
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    raise ConfigError(text)
