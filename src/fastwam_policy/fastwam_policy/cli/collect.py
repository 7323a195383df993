"""`fastwam collect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import (
    add_json,
    add_lerobot_version,
    add_policy,
    add_randomization,
    add_robot,
    add_workers,
    number,
    policy_source,
    sentence,
    write_figures,
)

NAME, GROUP = "collect", "data"
HELP = "episodes of the scripted expert in the simulator, as a LeRobot dataset"
EXAMPLE = "./fastwam collect data/towel --episodes 20"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, help="dataset to write, or to continue")
    parser.add_argument("--episodes", type=number(int, least=1), default=500)
    parser.add_argument("--task", type=sentence, default="fold the towel")
    add_randomization(parser)
    parser.add_argument(
        "--noise", type=number(float, least=0), default=0.015, help="rad, of the executed targets (default 0.015)"
    )
    parser.add_argument("--height", type=_height, default=180, help="of the 16:9 images (default 180)")
    parser.add_argument(
        "--first-seed", type=number(int, least=0), default=10_000, help="evaluations use seeds below 10000"
    )
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
    from fastwam_policy.common.processes import require_simulator

    require_simulator()
    from fastwam_policy.simulation.collect import CollectSettings, collect

    settings = CollectSettings(
        given.task,
        given.randomization,
        given.noise,
        given.height,
        given.first_seed,
        given.format,
        policy_source(given.policy) if given.policy else "",
        takeover=given.takeover,
    )
    failures = collect(given.folder, given.episodes, settings, given.workers, given.robot)
    print(f"wrote {given.folder}: {given.episodes} episodes; the expert failed on {failures} other seeds")
    write_figures(given.json, {"folder": str(given.folder), "episodes": given.episodes, "failed_seeds": failures})
    return 0
