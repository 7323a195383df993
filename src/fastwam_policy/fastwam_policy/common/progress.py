"""Progress bars."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastwam_policy.common.console import PlainConsole


def counted(*, shown: bool = True) -> Progress:
    """A bar with description, count and time left, for tasks of known length."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=PlainConsole(), disable=not shown)
