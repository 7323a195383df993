"""`fastwam make-bundle`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_robot, number, sentence

NAME, GROUP = "make-bundle", "bundles"
HELP = "write a bundle with random weights, to try the path without a download"
EXAMPLE = "./fastwam make-bundle bundles/random"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=["tiny", "mid", "full"], default="tiny", help="(default %(default)s)")
    parser.add_argument("--instruction", type=sentence, default="fold the towel")
    parser.add_argument("--seed", type=number(int, least=0), default=0)
    add_robot(parser)


def run(given: argparse.Namespace) -> int:
    """Write it."""
    from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    write_random_bundle(given.folder, RobotConfig.load(given.robot), given.instruction, given.size, given.seed)
    print(f"wrote {given.folder}: random weights, its actions mean nothing")
    return 0
