"""`fastwam operate` on a terminal of its own, with a deadman switch: both may be taken away."""

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
from tempfile import TemporaryDirectory

from fastwam_policy.operate.switch import key_event

_END = 10.0  # s for the operator to end
_LOOK = 0.05  # s


class OperatorTerminal:
    """The process, its controlling terminal, and a pipe in the place of a pedal that is held."""

    def __init__(self, robot_file: Path | None) -> None:
        self._master, slave = pty.openpty()
        self._folder = TemporaryDirectory()
        pedal = Path(self._folder.name) / "pedal"
        os.mkfifo(pedal)
        self._pedal = os.open(pedal, os.O_RDWR)
        given = ["--deadman", str(pedal), *(["--robot", str(robot_file)] if robot_file else [])]
        self._process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "fastwam_policy.cli", "operate", *given],
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        os.write(self._pedal, key_event(pressed=True))
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

    def release(self) -> None:
        """Take the foot off the pedal."""
        os.write(self._pedal, key_event(pressed=False))

    def unplug(self) -> None:
        """Take the pedal away."""
        if self._pedal >= 0:
            os.close(self._pedal)
            self._pedal = -1
            self._folder.cleanup()

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
        self.unplug()
