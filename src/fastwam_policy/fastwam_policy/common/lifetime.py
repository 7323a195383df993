"""Processes that end when the process that has started them does, however that ends: Linux's parent-death signal.

The kernel sends it when the *thread* that has started a process ends: that thread must live as long as the process.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import sys
from collections.abc import Sequence

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl
_IF_PARENT_LIVES = '[ "$PPID" = "$0" ] && exec "$@"'


def with_parent(command: Sequence[str]) -> list[str]:
    """A command line that runs `command` and gets SIGTERM when this process has ended.

    Programs set the signal, before `command` takes their place: Python's `preexec_fn` would run after a fork of this
    process with all its threads and memory. The parent may have ended before the signal was set, and is checked after.
    """
    if sys.platform != "linux":
        return list(command)
    return ["setpriv", "--pdeathsig", "TERM", "sh", "-c", _IF_PARENT_LIVES, str(os.getpid()), *command]


def launch_prefix() -> str:
    """What makes a launch file's process end with `ros2 launch`, as its action's `prefix`; see :func:`with_parent`."""
    return shlex.join(with_parent([]))


def end_with_parent(parent: int) -> None:
    """From now on SIGKILL ends this process when its parent, of that id, has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before this
            os.kill(os.getpid(), signal.SIGKILL)
