"""Types of command line arguments."""

from __future__ import annotations

import argparse
from pathlib import Path


def new_file(text: str) -> Path:
    """A file to write in the end: a command of minutes must not fail then."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: not a file in an existing folder")
    return path
