"""`fastwam check-engine`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_denoise_steps, add_json, write_figures

NAME, GROUP = "check-engine", "check"
HELP = "what each engine option changes in a bundle's actions"
EXAMPLE = "./fastwam check-engine bundles/towel_small"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    add_denoise_steps(parser, "numbers to compare with the bundle's own (default 1 2 4)", nargs="+")
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Measure, and print the table."""
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.performance.engine_options import FEWER_STEPS, check_engine, table

    result = check_engine(given.folder, given.device, given.denoise_steps or FEWER_STEPS)
    PlainConsole().print(table(result))
    write_figures(given.json, result)
    return 0
