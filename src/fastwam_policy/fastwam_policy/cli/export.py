"""`fastwam export`."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME, GROUP = "export", "bundles"
HELP = "write a bundle's weights as an official .pt, or the bundle as a LeRobot checkpoint"
EXAMPLE = "./fastwam export bundles/mine mine.pt"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, help="the bundle")
    parser.add_argument("target", type=Path, help="file to write; for LeRobot a folder")
    parser.add_argument("--to", choices=["official", "lerobot"], default="official")


def run(given: argparse.Namespace) -> int:
    """Write it."""
    from fastwam_policy.policies.fastwam.bundle import Bundle

    config = Bundle.read_config(given.folder)
    if given.to == "lerobot":
        from fastwam_policy.policies.fastwam.export_lerobot import export_lerobot

        for note in export_lerobot(given.folder, config, given.target):
            print(f"note: {note}")
    else:
        from fastwam_policy.policies.fastwam.exchange import export_official

        export_official(given.folder, config, given.target)
    print(f"wrote {given.target}")
    return 0
