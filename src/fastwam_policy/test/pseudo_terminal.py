"""A command of the package at a terminal that a test reads and types on."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
import time

_LOOKS = {"TERM": "xterm", "COLUMNS": "200", "LINES": "24"}


class Terminal:
    """A command of `fastwam` on a pseudo-terminal, which is its controlling one."""

    def __init__(self, *arguments, **variables):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastwam_policy.cli", *map(str, arguments)],
            stdin=slave, stdout=slave, stderr=slave, env=os.environ | _LOOKS | variables,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.text = ""
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while not self._closing.is_set():  # a read that waits would keep the terminal open
            try:
                if select.select([self._master], [], [], 0.05)[0]:
                    self.text += os.read(self._master, 4096).decode(errors="replace")
            except OSError:
                return

    def close(self):
        """As when its window is closed, or the ssh connection that it came from."""
        self._closing.set()
        self._reader.join()
        os.close(self._master)

    def press(self, key):
        os.write(self._master, key.encode())

    def shows(self, pattern):
        return re.search(pattern, re.sub(r"\x1b\[[\d;]*m", "", self.text))  # colours are not looked at

    def press_until(self, ros, key, done):
        """Press a key, and again every 2 s: services are discovered one by one. `done`: a pattern, or a function."""
        pressed = 0.0

        def seen():
            nonlocal pressed
            if time.monotonic() - pressed > 2.0:
                pressed = time.monotonic()
                self.press(key)
            return done() if callable(done) else self.shows(done)

        ros.until(seen)
