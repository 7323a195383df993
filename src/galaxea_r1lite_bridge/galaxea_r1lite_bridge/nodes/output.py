"""Output that never holds a process up.

A terminal that is stopped with Ctrl-S, or a pipe that nobody reads, blocks whoever prints, and with it Python's lock:
the control thread as well, which then cannot brake. Here a child process passes on what is printed, and drops the
oldest that finds no room. It is a process, since what a crash prints last must come out, too.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from contextlib import suppress
from typing import Final

from galaxea_r1lite_bridge.nodes.ending import ENDING

_OUTPUT, _ERROR = 1, 2  # descriptors
_MOST: Final = 2**20  # bytes that wait: the newest
_AT_ONCE: Final = 4096  # bytes
_LAST: Final = 1.0  # s for what waits when the process has ended


def never_wait_for_output() -> None:
    """Let this process print without ever waiting, all of it to standard error; before it has threads."""
    if os.isatty(_ERROR):
        os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "1")
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(write_end)
        try:
            _pass_on(read_end)
        finally:
            os._exit(0)
    os.close(read_end)
    for descriptor in (_OUTPUT, _ERROR):
        os.dup2(write_end, descriptor)
    os.close(write_end)


def _pass_on(source: int) -> None:
    """From `source` to standard error, until its other end is closed."""
    for number in (*ENDING, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)  # they are for the parent, whose end ends this process
    with suppress(OSError):  # not blocking, through a descriptor of its own: others share the one that was given
        os.dup2(os.open(f"/proc/self/fd/{_ERROR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_APPEND), _ERROR)
    waiting, dropped, give_up = b"", 0, math.inf
    while (waiting or give_up == math.inf) and time.monotonic() < give_up:
        ends = select.poll()
        if give_up == math.inf:
            ends.register(source, select.POLLIN)
        if waiting:
            ends.register(_ERROR, select.POLLOUT)
        ready = dict(ends.poll(1000 * _LAST))
        if source in ready:
            data = os.read(source, _AT_ONCE)
            if not data:
                give_up = time.monotonic() + _LAST
            waiting += data
            if (excess := len(waiting) - _MOST) > 0:
                waiting, dropped = waiting[excess:], dropped + excess
        if _ERROR in ready:
            if dropped:
                waiting, dropped = b"\n[%d bytes were not printed: nothing took them]\n" % dropped + waiting, 0
            with suppress(BlockingIOError):
                waiting = waiting[os.write(_ERROR, waiting[:_AT_ONCE]) :]
