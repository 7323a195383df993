"""`fastwam train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fastwam_policy.common.arguments import (
    add_json,
    add_robot,
    add_threads,
    add_training_config,
    add_workers,
    write_figures,
)

if TYPE_CHECKING:
    from fastwam_policy.training.config import TrainingConfig

NAME, GROUP = "train", "train"
HELP = "from LeRobot datasets to a bundle; see docs/how-to/train-a-policy.md"
EXAMPLE = './fastwam train config/training/towel.yaml output/mine --set "datasets=[data/mine]" --set steps=1000'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_training_config(parser)
    parser.add_argument("output", type=Path, help="folder to write, or to continue after an interruption")
    parser.add_argument(
        "--find-batch-size", action="store_true", help="take less than batch_size where a step does not fit into memory"
    )
    add_threads(parser)
    add_workers(parser, 1)
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Train to the end."""
    from fastwam_policy.training.config import read_config

    config = read_config(given.config, given.set)
    if given.find_batch_size:
        from fastwam_policy.training.trainer import with_batch_that_fits

        config = with_batch_that_fits(config, given.output, given.robot, given.where)
        print(f"batch_size: {config.batch_size}")
    return run_training(config, given)


def run_training(config: TrainingConfig, given: argparse.Namespace) -> int:
    """Train to the end, with the other arguments as given."""
    import json

    import torch
    from accelerate import PartialState

    from fastwam_policy.training.trainer import SUMMARY_FILE, train

    if given.threads:
        torch.set_num_threads(given.threads)
    result = train(config, given.output, given.robot, given.where)
    if PartialState().is_main_process:
        print(f"wrote {given.output / 'bundle'}; last: {result}")
        write_figures(given.json, json.loads((given.output / SUMMARY_FILE).read_text(encoding="utf-8")))
    return 0
