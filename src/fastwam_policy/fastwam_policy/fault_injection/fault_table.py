"""Figures of the fault injection: what the bridge did, how soon it held, and how far every limit was used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from galaxea_r1lite_bridge.robot.config import LimitArrays
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

BEGIN, END = "<!-- fault table: written by `fastwam check-safety` -->", "<!-- end of the fault table -->"
_JITTER = 0.002  # s: stamps are of the node's clock, limits of the steady one, read a moment later
_FEWEST = 3  # commands that an acceleration needs
_RESTING = 1e-6  # rad/s
_SILENCE = 0.5  # s without a command: 50 periods


@dataclass(frozen=True)
class Extremes:
    """Largest use of the limits by a sequence of commands; 1 is the limit itself."""

    velocity: float
    acceleration: float
    violations: int
    """Commands that passed a limit of position, velocity or acceleration, or were not finite."""


@dataclass(frozen=True)
class Row:
    """What one fault led to.

    Attributes:
        fault: what was done.
        state: of the bridge when it had settled.
        reasons: numbered reasons and drops since the fault.
        expected: what had to be among them, and whether it was.
        to_hold: s from the fault to rest; None: the motion continued.
        velocity: largest share of a joint's velocity limit.
        acceleration: largest share of a joint's acceleration limit.
        violations: commands outside of limits, over the whole run.
    """

    fault: str
    state: str
    reasons: str
    as_expected: bool
    to_hold: float | None
    velocity: float
    acceleration: float
    violations: int


def extremes(
    stamps: NDArray[np.int64],
    positions: NDArray[np.float64],
    velocities: NDArray[np.float64],
    limits: LimitArrays,
    max_dt: float,
) -> Extremes:
    """Use of the limits by commands at `stamps` [N] ns with `positions` and `velocities` [N, D].

    Velocities are judged by the positions, accelerations by the velocities: each needs a period once. A period longer
    than `max_dt` s counts as `max_dt`, as it does in the limiter. After a step back of the clock the period is unknown:
    there only the velocity over `max_dt` is looked at.
    """
    inside = (positions >= limits.lower - 1e-9) & (positions <= limits.upper + 1e-9)  # NaN compares false
    bad = np.asarray(~inside.all(axis=1))
    if len(stamps) < _FEWEST:
        return Extremes(0.0, 0.0, int(bad.sum()))
    periods = np.diff(stamps)[:, None] / 1e9
    unknown = periods[:, 0] <= 0
    dt = np.where(unknown[:, None], max_dt, np.minimum(periods, max_dt))
    acceleration = np.diff(velocities, axis=0) / dt
    acceleration[unknown] = 0.0
    speeds = (np.abs(np.diff(positions, axis=0) / dt) / limits.velocity).max(axis=1)
    changes = (np.abs(acceleration) / limits.acceleration).max(axis=1)
    bad[1:] |= ~(np.maximum(speeds, changes) <= 1 + _JITTER / dt[:, 0])
    return Extremes(float(speeds.max()), float(changes.max()), int(bad.sum()))


def time_to_hold(times: Sequence[float], speeds: Sequence[float], since: float, until: float) -> float | None:
    """Time, s, from `since` to the last command that moved; 0 when none moved.

    None when the last one before `until` still does; when none came for a while, nothing is commanded any more.
    """
    moving = [time for time, speed in zip(times, speeds, strict=True) if time >= since and speed > _RESTING]
    if not moving:
        return 0.0
    return None if moving[-1] == times[-1] > until - _SILENCE else moving[-1] - since


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    shown = Table(title="Faults", show_lines=True)
    for name in ("fault", "afterwards", "reasons and drops", "time to hold", "velocity", "acceleration", "violations"):
        shown.add_column(name, overflow="fold")
    for row in rows:
        state = row.state if row.as_expected else Text(f"{row.state}, unexpected", "red")
        hold = "continues" if row.to_hold is None else f"{row.to_hold:.2f} s"
        use = (f"{row.velocity:.2f}", f"{row.acceleration:.2f}", str(row.violations))
        shown.add_row(row.fault, state, row.reasons.replace(", ", "\n"), hold, *use)
    return shown


def markdown(rows: Sequence[Row]) -> str:
    """The table of docs/results/faults.md."""
    lines = [
        "| fault | state afterwards | reasons and drops | time to hold | velocity | acceleration | violations |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        hold = "continues" if row.to_hold is None else f"{row.to_hold:.2f} s"
        lines.append(
            f"| {row.fault} | {row.state}{'' if row.as_expected else ' (UNEXPECTED)'} | {row.reasons} | {hold} "
            f"| {row.velocity:.2f} | {row.acceleration:.2f} | {row.violations} |"
        )
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as plain data."""
    return [asdict(row) for row in rows]


def around_table(path: Path) -> tuple[str, str]:
    """The text before and after the table in a Markdown file; ConfigError where its marks are missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{path}: the marks {BEGIN} and {END}, between which the table goes, are missing")
    head, rest = text.split(BEGIN, 1)
    return head, rest.split(END, 1)[1]


def write_table(path: Path, rows: Sequence[Row], note: str) -> None:
    """Replace the table in the Markdown file at `path`; ConfigError where its marks are missing."""
    head, tail = around_table(path)
    path.write_text(f"{head}{BEGIN}\n{note}\n\n{markdown(rows)}\n{END}{tail}", encoding="utf-8")
