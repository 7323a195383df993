"""The signals that end a process in order: arms come to rest, files are closed, results are sent."""

from __future__ import annotations

import signal
from collections.abc import Callable

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def on_ending(act: Callable[[], object]) -> None:
    """Call `act` at each of them. Under nohup SIGHUP stays ignored."""
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: act())
