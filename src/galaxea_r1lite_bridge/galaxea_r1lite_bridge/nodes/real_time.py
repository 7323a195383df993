"""Real-time priority and locked memory for the process that controls, where the system allows them."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path

_LOCK_AS_USED = 1 | 2 | 4  # MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT of mlockall: what is used, now and later
HOW_TO_ALLOW = (
    "echo '* - rtprio 90' | sudo tee /etc/security/limits.d/r1lite.conf; "
    "echo '* - memlock unlimited' | sudo tee -a /etc/security/limits.d/r1lite.conf; then log in again"
)


def go_before_others(priority: int) -> str:
    """Let all threads of this process, and those that they start, go before ordinary ones (SCHED_FIFO).

    All of them: they share Python's lock, and one that holds it must not wait for the processor. What the process uses
    is kept in memory.

    Args:
        priority: 1 to 99; 0: nothing is changed.

    Returns:
        What is not allowed, and how to allow it; empty: nothing.
    """
    if priority == 0:
        return ""
    try:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return f"no real-time priority, and on a busy machine late ticks. To allow it: {HOW_TO_ALLOW}"
    # With a limit, memory beyond it would be refused.
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY or os.geteuid() == 0:
        ctypes.CDLL(None).mlockall(_LOCK_AS_USED)
    return ""
