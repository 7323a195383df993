"""Keys read one by one, and one line that is written over and over, on a terminal.

A terminal may be closed at any time. Nothing here raises an error then: whoever drives the arms stops them first.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

QUIT, SUSPEND = "q", "\x1a"
_MOST = 64  # keys read at once


class Keys(Protocol):
    """Waits for keys."""

    def __call__(self, seconds: float, also: Sequence[int] = ()) -> str:
        """The keys within so many s, sooner where a file of `also` can be read; the terminal's end reads as QUIT."""


def no_keys(seconds: float, also: Sequence[int] = ()) -> str:
    """Where there is no terminal."""
    select.select(also, [], [], seconds)
    return ""


@contextmanager
def single_keys() -> Iterator[Keys]:
    """Yield what reads keys.

    Ctrl-Z and SIGTSTP read as SUSPEND, and suspend nothing: nobody would read the keys. Ctrl-S is an ordinary key: it
    would hold up the output, and with it the process.

    Raises:
        ConfigError: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise ConfigError("this command needs a terminal: its keys are read one by one. Over SSH use ssh -t")
    suspended: list[str] = []

    def read(seconds: float, also: Sequence[int] = ()) -> str:
        try:
            if sys.stdin not in select.select([sys.stdin, *also], [], [], seconds)[0]:
                return suspended.pop() if suspended else ""
            # Not sys.stdin.read: what it takes ahead into its buffer, select does not see.
            return os.read(sys.stdin.fileno(), _MOST).decode(errors="replace") or QUIT
        except OSError:
            return QUIT

    before = termios.tcgetattr(sys.stdin)
    handler = signal.signal(signal.SIGTSTP, lambda *_: suspended.append(SUSPEND))
    try:
        tty.setcbreak(sys.stdin)
        modes = termios.tcgetattr(sys.stdin)
        modes[0] &= ~termios.IXON
        modes[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(sys.stdin, termios.TCSANOW, modes)
        yield read
    finally:
        signal.signal(signal.SIGTSTP, handler)
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        write("\n")


def status_line(text: str) -> bool:
    """Overwrite the current line; false: the terminal takes no more output."""
    width = shutil.get_terminal_size().columns - 1
    return write(f"\r\x1b[K{text[:width]}")


def show(text: str) -> None:
    """A line that stays, above the status line."""
    write(f"\r\x1b[K{text}\n")


def write(text: str) -> bool:
    """Write to standard output; false: it takes no more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        return False
    return True
