"""Processes that are started, watched and ended together. Everything that starts nodes uses it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from fastwam_policy.common.lifetime import with_parent

PATIENCE = 10.0  # s for a process to end before it is killed
_PERIOD = 0.01  # s between two looks at the processes
_LAST_LINES = 1.0  # s for the last lines of a process to come through
_COLOURS = (36, 33, 32, 35, 34, 31)  # of ANSI terminals


@dataclass(frozen=True)
class Used:
    """What a process and its children have of the machine."""

    cpu_seconds: float
    """Processor time since they began."""
    memory: int
    """Bytes resident."""
    threads: int
    files: int
    """Open ones, sockets among them."""


class ProcessGroup:
    """Processes by name. Each has a session of its own, so that Ctrl-C reaches only the owner of the group.

    They end with the group, and when this process ends in whatever way: SIGTERM lets the bridge brake and the recorder
    close its file. A process's own children end with it.

    Args:
        log: file that all their output is appended to; None prints it, each line behind the name of its process.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: dict[str, threading.Thread] = {}
        self._printing, self._colours, self._width = threading.Lock(), itertools.cycle(_COLOURS), 0
        # The kernel ties a process to the thread that starts it. No signal's exception interrupts this one, either.
        self._starter = ThreadPoolExecutor(1, "starter")

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        """Whether a process of that name was started, and `end` was not called for it."""
        return name in self._processes

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process under a name that none has."""
        self._starter.submit(self._start, name, with_parent(command)).result()

    def _start(self, name: str, command: Sequence[str]) -> None:
        if self._log is not None:
            with self._log.open("ab") as output:
                self._processes[name] = _popen(command, output)
            return
        process = self._processes[name] = _popen(command, subprocess.PIPE)
        self._width = max(self._width, len(name))
        reader = threading.Thread(target=self._print, args=(name, next(self._colours), process.stdout), daemon=True)
        self._readers[name] = reader
        reader.start()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process and its children."""
        _send(self._processes[name], number)

    def ended(self) -> tuple[str, int] | None:
        """Name and exit status of a process that has ended by itself; None while all run."""
        for name, process in list(self._processes.items()):
            if _has_ended(process):
                return name, process.returncode
        return None

    def used(self, name: str) -> Used:
        """What a process, and those that it has started, have used by now."""
        return used(psutil.Process(self._processes[name].pid))

    def wait(self) -> tuple[str, int]:
        """Name and exit status of the first process that ends by itself."""
        while (first := self.ended()) is None:
            time.sleep(_PERIOD)
        return first

    def end(self, *names: str, patience: float = PATIENCE) -> None:
        """End these processes, or all; those that have not ended after so many s are killed."""
        ending = {name: self._processes[name] for name in names or list(self._processes)}
        for process in ending.values():
            _send(process, signal.SIGCONT)
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + patience
        for name, process in ending.items():
            while not _has_ended(process):
                if time.monotonic() > deadline:
                    _send(process, signal.SIGKILL)
                time.sleep(_PERIOD)
            if reader := self._readers.pop(name, None):
                reader.join(_LAST_LINES)
            del self._processes[name]

    def close(self) -> None:
        """End all processes, and let none begin."""
        self._starter.submit(lambda: None).result()  # one that was begun when a signal came
        self.end()
        self._starter.shutdown()

    def _print(self, name: str, colour: int, lines: IO[str]) -> None:
        for line in lines:
            coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
            begin, end = (f"\033[{colour}m", "\033[0m") if coloured else ("", "")
            with (
                self._printing,
                suppress(OSError, ValueError),
            ):  # without a terminal the process must not wait for its reader
                print(f"{begin}{time.strftime('%X')} {name:{self._width}} |{end} {line.rstrip()}", flush=True)


def used(process: psutil.Process) -> Used:
    """What a process and its children use."""
    times, memory, threads, files = 0.0, 0, 0, 0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess), one.oneshot():
            times += sum(one.cpu_times()[:2])
            memory += one.memory_info().rss
            threads += one.num_threads()
            files += one.num_fds()
    return Used(times, memory, threads, files)


def _popen(command: Sequence[str], output: int | IO[bytes]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        text=True, errors="replace",
    )  # fmt: skip


def _send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    if process.returncode is None:
        os.killpg(process.pid, number)


def _has_ended(process: subprocess.Popen[str]) -> bool:
    """Whether a process has ended. Its children are killed before its id may become another's."""
    if process.returncode is None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        _send(process, signal.SIGKILL)
        process.wait()
    return process.returncode is not None
