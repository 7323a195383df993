"""Keys read one by one, and one line that is written over and over, on a terminal."""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

QUIT = "q"
_MOST = 64  # keys read at once


@contextmanager
def single_keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits so many s for keys and returns them; the terminal's end reads as QUIT.

    Raises:
        ConfigError: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise ConfigError("this command needs a terminal: its keys are read one by one. Over SSH use ssh -t")

    def read(seconds: float) -> str:
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return ""
        # Not sys.stdin.read: what it takes ahead into its buffer, select does not see.
        return os.read(sys.stdin.fileno(), _MOST).decode(errors="replace") or QUIT

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield read
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        print()


def status_line(text: str) -> None:
    """Overwrite the current line."""
    width = shutil.get_terminal_size().columns - 1
    sys.stdout.write(f"\r\x1b[K{text[:width]}")
    sys.stdout.flush()


def show(text: str) -> None:
    """A line that stays, above the status line."""
    sys.stdout.write(f"\r\x1b[K{text}\n")
    sys.stdout.flush()
