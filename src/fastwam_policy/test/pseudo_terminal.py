"""A command of the package at a terminal that a test reads and types on."""

import os
import pty
import re
import subprocess
import sys
import threading
import time


class Terminal:
    """A command of `fastwam` on a pseudo-terminal."""

    def __init__(self, *arguments):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastwam_policy.cli", *map(str, arguments)],
            stdin=slave, stdout=slave, stderr=slave, env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip
        os.close(slave)
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                self.text += os.read(self._master, 4096).decode(errors="replace")
            except OSError:
                return

    def press(self, key):
        os.write(self._master, key.encode())

    def shows(self, pattern):
        return re.search(pattern, self.text)

    def press_until(self, ros, key, pattern):
        """Press a key, and again every 2 s: services are discovered one by one."""
        pressed = 0.0

        def seen():
            nonlocal pressed
            if time.monotonic() - pressed > 2.0:
                pressed = time.monotonic()
                self.press(key)
            return self.shows(pattern)

        ros.until(seen)
