"""`fastwam compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fastwam_policy.cli.benchmark import NAMES, add_tasks, chosen_benchmark, chosen_tasks
from fastwam_policy.common.arguments import (
    add_json,
    add_robot,
    add_threads,
    add_training_config,
    add_workers,
    number,
    write_figures,
)

if TYPE_CHECKING:
    from fastwam_policy.model.variants import VariantName

NAME, GROUP = "compare", "train"
HELP = "train and evaluate variants alike: hours, resumable"
VARIANTS: tuple[VariantName, ...] = "fastwam", "fastwam_no_video", "behaviour_cloning", "joint", "idm", "optional_idm"
EXAMPLE = "./fastwam compare config/training/towel.yaml output/compare --suite objects --tasks 0 --trials 20"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_training_config(parser)
    parser.add_argument("output", type=Path, help="folder to write, or to continue")
    parser.add_argument(
        "--variant", action="append", metavar="NAME", choices=VARIANTS,
        help=f"one of {', '.join(VARIANTS)}; several may be given, all by default",
    )  # fmt: skip
    parser.add_argument("--trainings", type=number(int, least=1), default=1, metavar="K", help="of each variant")
    parser.add_argument("--benchmark", choices=NAMES, default="sim", help="what evaluates them (default sim)")
    add_tasks(parser)
    add_threads(parser)
    add_workers(parser)
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Do what is missing, and print the table."""
    import torch

    from fastwam_policy.benchmarks.compare import compare, tables
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.training.config import read_config

    benchmark = chosen_benchmark(given)
    tasks = chosen_tasks(benchmark, given)
    if given.threads:
        torch.set_num_threads(given.threads)
    config = read_config(given.config, given.set)
    variants = given.variant or VARIANTS
    rows = compare(
        config, given.output, benchmark, tasks, given.trials, variants, given.trainings, given.where, given.robot
    )
    for table in tables(rows):
        PlainConsole().print(table)
    write_figures(given.json, rows)
    return 0
