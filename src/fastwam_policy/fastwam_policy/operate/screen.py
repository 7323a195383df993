"""What the operator sees: one screen, one line where the terminal is small, and plain lines where there is none."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from io import StringIO

from rich.console import RenderableType

from fastwam_policy.common.console import PlainConsole
from fastwam_policy.operate.terminal import show, status_line, write

_WIDTH, _HEIGHT = 80, 24  # letters, at least, for a screen
_KEPT = 100  # messages
_LEFT = 12  # messages that stay when the screen is gone
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, and the cursor


class Screen:
    """Draws it; messages may come from any thread."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._messages: deque[str] = deque(maxlen=_KEPT)
        self._entered = False
        self._last = ""

    @property
    def fits(self) -> bool:
        """Whether the terminal has room for a screen now."""
        width, height = shutil.get_terminal_size()
        return self._terminal and width >= _WIDTH and height >= _HEIGHT

    def say(self, text: str) -> None:
        """A message; without a screen it is printed at once."""
        self._messages.append(f"{time.strftime('%H:%M:%S')} {text}")
        if not self._entered:
            show(text) if self._terminal else write(f"{text}\n")

    def draw(self, state: str, line: str, screen: Callable[[int, list[str]], RenderableType]) -> bool:
        """Show the newest; false: the terminal takes no more output.

        Args:
            state: printed when it has changed, where there is no terminal.
            line: where there is one line.
            screen: of so many rows, with the messages so far.
        """
        if not self._terminal:
            changed, self._last = state != self._last, state
            return not changed or write(f"{state}\n")
        if not self.fits:
            self.close()
            return status_line(line)
        width, height = shutil.get_terminal_size()
        text = write(_ENTER) if not self._entered else True
        self._entered = True
        file = StringIO()
        console = PlainConsole(file=file, width=width, height=height, force_terminal=True)
        console.print(screen(height, list(self._messages)))
        lines = file.getvalue().rstrip("\n").split("\n")[:height]
        return text and write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[J")

    def close(self) -> None:
        """Leave the screen as it was before, with the last messages below."""
        if self._entered:
            self._entered = False
            write(_LEAVE + "".join(f"{message}\n" for message in list(self._messages)[-_LEFT:]))
