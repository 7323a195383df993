"""`fastwam compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import (
    add_json,
    add_randomization,
    add_robot,
    add_threads,
    add_training_config,
    add_workers,
    number,
    write_figures,
)

NAME, GROUP = "compare", "train"
HELP = "train and evaluate every variant alike: hours, resumable"
EXAMPLE = "./fastwam compare config/training/towel.yaml output/compare --randomization objects --episodes 20"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_training_config(parser)
    parser.add_argument("output", type=Path, help="folder to write, or to continue")
    parser.add_argument("--episodes", type=number(int, least=1), default=100, help="of each evaluation")
    add_randomization(parser)
    add_threads(parser)
    add_workers(parser)
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Do what is missing, and print the table."""
    from fastwam_policy.common.processes import require_simulator

    require_simulator()
    import torch

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.simulation.compare import compare, table
    from fastwam_policy.simulation.episode import EpisodeSettings
    from fastwam_policy.training.config import read_config

    if given.threads:
        torch.set_num_threads(given.threads)
    config, settings = read_config(given.config, given.set), EpisodeSettings(given.randomization)
    rows = compare(config, given.output, range(given.episodes), settings, given.where, given.robot)
    PlainConsole().print(table(rows))
    write_figures(given.json, rows)
    return 0
