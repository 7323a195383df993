"""`fastwam operate` on a terminal of its own: its keys are pressed, and the terminal may be taken away."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

_END = 10.0  # s for the operator to end
_LOOK = 0.05  # s


class OperatorTerminal:
    """The process and its controlling terminal."""

    def __init__(self, robot_file: Path | None) -> None:
        self._master, slave = pty.openpty()
        robot = ["--robot", str(robot_file)] if robot_file else []
        self._process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "fastwam_policy.cli", "operate", *robot],
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """What it shows, so that it never waits; a read that waited would keep the terminal open."""
        with suppress(OSError):  # the process has ended
            while not self._closing.is_set():
                if select.select([self._master], [], [], _LOOK)[0] and not os.read(self._master, 4096):
                    return

    def press(self, key: str) -> None:
        """Type a key."""
        os.write(self._master, key.encode())

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._process.send_signal(signal.Signals(number))

    def hang_up(self) -> None:
        """As when its window is closed, or the connection that it came from is lost."""
        self._closing.set()
        self._reader.join()
        os.close(self._master)

    def close(self) -> None:
        """End it."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._closing.is_set():
            self.hang_up()
