"""The signals that end a process in order: arms come to rest, files are closed, results are sent."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Ending:
    """Whether one of them has come.

    A signal's handler interrupts any line of the main thread, another handler's too. It may take no lock:
    `threading.Event` takes one, and at a second signal a node waited for itself, with its arms in motion.
    """

    def __init__(self) -> None:
        self._came = False

    def is_set(self) -> bool:
        """Whether the process must end."""
        return self._came

    def handle(self, *_: object) -> None:
        """For `signal.signal`."""
        self._came = True


def on_ending() -> Ending:
    """Catch them from now on. Under nohup SIGHUP stays ignored."""
    ending = Ending()
    _handle(ending.handle)
    return ending


def end_at_once() -> None:
    """Until :func:`on_ending`, let them raise SystemExit(0): what has begun nothing needs not be waited for."""
    _handle(_exit)


def leave(status: int) -> NoReturn:
    """End the process at once, whatever its threads do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


def _handle(handler: Callable[..., object]) -> None:
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
