"""`fastwam export`."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME, GROUP = "export", "bundles"
HELP = "write a bundle's weights as an official .pt"
EXAMPLE = "./fastwam export bundles/towel_small towel_small.pt"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)


def run(given: argparse.Namespace) -> int:
    """Write it."""
    from fastwam_policy.policies.fastwam.bundle import Bundle
    from fastwam_policy.policies.fastwam.exchange import export_official

    export_official(given.folder, Bundle.read_config(given.folder), given.target)
    print(f"wrote {given.target}")
    return 0
