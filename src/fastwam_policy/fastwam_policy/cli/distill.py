"""`fastwam distill`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.cli import train
from fastwam_policy.common.arguments import add_json, add_robot, add_set, add_threads, add_workers, existing_file

NAME, GROUP = "distill", "train"
HELP = "a bundle that denoises in one or two steps; see docs/how-to/train-a-policy.md"
EXAMPLE = "./fastwam distill output/mine/bundle output/fast --steps 1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, help="bundle with many denoise steps")
    parser.add_argument("output", type=Path, help="folder to write, or to continue after an interruption")
    parser.add_argument("--steps", type=int, choices=[1, 2], required=True, help="denoise steps of the result")
    parser.add_argument(
        "--config", type=existing_file, metavar="FILE",
        help="how the bundle was trained; training.yaml beside the bundle by default",
    )  # fmt: skip
    add_set(parser)
    add_threads(parser)
    add_workers(parser, 1)
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Train to the end."""
    from fastwam_policy.training.config import read_config
    from fastwam_policy.training.distillation import distilling
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    path = given.config or given.bundle.parent / "training.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; name with --config how {given.bundle} was trained, and its data")
    return train.run_training(distilling(given.bundle, given.steps, read_config(path, given.set), given.set), given)
