"""What is printed for people: texts appear as they are, whoever wrote them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text


class PlainConsole(Console):
    """Takes no markup from a text: names and messages come from recordings, policies and other machines.

    What is to have a style is a :class:`rich.text.Text`. Letters that would control the terminal are replaced.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """As Console's."""
        return super().render_str(printable(text), **settings)


def printable(text: str) -> str:
    """The text with a replacement for each letter that is not to be seen, except ends of lines."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
