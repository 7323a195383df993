"""`fastwam fit-body`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_json, existing_file, write_figures

NAME, GROUP = "fit-body", "check"
HELP = "cover the links of a robot's URDF with capsules, which the bridge keeps apart"
EXAMPLE = "./fastwam fit-body config/r1lite.yaml --write"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("robot", type=existing_file, help="description of the robot, such as config/r1lite.yaml")
    parser.add_argument("--write", action="store_true", help="write them into the file's section `body`")
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Say how well they fit."""
    from dataclasses import asdict

    from rich.table import Table

    from fastwam_policy.common.console import PlainConsole
    from galaxea_r1lite_bridge.robot.fit_body import fit_body

    text, fitted = fit_body(Path(given.robot))
    table = Table("link", "capsules", "stand out by up to [mm]", "leave uncovered [mm]")
    for link in fitted:
        table.add_row(link.link, str(link.capsules), f"{1e3 * link.error:.1f}", f"{1e3 * link.outside:.2f}")
    PlainConsole().print(table)
    if given.write:
        Path(given.robot).write_text(text, encoding="utf-8")
    write_figures(given.json, [asdict(link) for link in fitted])
    return 0
