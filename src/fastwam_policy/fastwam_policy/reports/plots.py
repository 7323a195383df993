"""A session's plots as plain data, which the page's script draws with uPlot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastwam_policy.reports.session import STAGES, Session
from fastwam_policy.reports.summary import open_loop_error
from galaxea_r1lite_bridge.robot.config import RobotConfig

_POINTS = 1000  # of a line: as many as a screen shows
_CHUNKS = 100  # drawn, evenly in time
_COLORS = ("blue", "orange", "green", "purple", "red")

Values = list[float | None]


@dataclass(frozen=True)
class Line:
    """One line of a plot; `color` is one of the page's."""

    label: str
    color: str
    values: Values
    width: float = 1.5
    points: bool = False


@dataclass(frozen=True)
class Plot:
    """Lines over the section's x; with `joint`, that one of every chunk is drawn as well, inside `range`."""

    title: str
    lines: list[Line]
    joint: int | None = None
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Section:
    """Plots over one x axis: the session's time in s or, without `over_time`, the steps of a chunk."""

    title: str
    x: Values
    charts: list[Plot]
    over_time: bool = True

    @property
    def key(self) -> dict[str, str]:
        """Colour of each label."""
        chunks = {"predicted chunks": "blue"} if any(plot.joint is not None for plot in self.charts) else {}
        return {line.label: line.color for plot in self.charts for line in plot.lines} | chunks


def plots(session: Session, robot: RobotConfig, frames: Sequence[float], fps: int) -> dict[str, Any]:
    """All that the page's script needs; `frames` [F] are the times in s at which the film's frames were taken."""
    drawn = session.chunks[:: max(1, -(-len(session.chunks) // _CHUNKS))]
    sections = (_joints(session, robot), _bridge(session), _latency(session), _errors(session, robot))
    return {
        "duration": session.duration,
        "frames": plain(frames),
        "fps": fps,
        "chunks": [
            {
                "begin": float(chunk.times[0]),
                "step": float(chunk.times[1] - chunk.times[0]) if len(chunk.times) > 1 else 0.0,
                "actions": [plain(column) for column in chunk.actions.T],
            }
            for chunk in drawn
        ],
        "sections": [asdict(section) | {"key": section.key} for section in sections if section],
    }


def plain(values: ArrayLike) -> Values:
    """Numbers of four digits that JSON can hold: None for what is not finite."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64)]


def _joints(session: Session, robot: RobotConfig) -> Section | None:
    series = (
        ("measured", "grey", 3.0, session.feedback),
        ("recorded target", "text", 1.5, session.recorded),
        ("command sent", "orange", 1.5, session.commands),
    )
    if session.duration <= 0 or not any(positions for *_, positions in series):
        return None
    grid = np.linspace(0, session.duration, _POINTS, dtype=np.float64)
    charts = []
    for group, place in robot.slices.items():
        sampled = [(label, color, width, by[group].at(grid)) for label, color, width, by in series if group in by]
        for column, index in enumerate(range(place.start, place.stop)):
            lines = [Line(label, color, plain(rows[:, column]), width) for label, color, width, rows in sampled]
            predicted = [chunk.actions[:, index] for chunk in session.chunks]
            span = (float(min(map(np.min, predicted))), float(max(map(np.max, predicted)))) if predicted else None
            title = f"{robot.joint_names[index]} [{robot.units[index]}]"
            charts.append(Plot(title, lines, index if predicted else None, span))
    return Section("Joints: predicted, commanded, measured", plain(grid), charts)


def _bridge(session: Session) -> Section | None:
    dated = session.dated(session.bridge_status)
    dated = dated[:: max(1, -(-len(dated) // _POINTS))]
    if not dated:
        return None

    def line(label: str, color: str, field: str) -> Line:
        return Line(label, color, plain([getattr(status, field) for _, status in dated]))

    charts = [
        Plot("Plan [s]", [line("age", "blue", "plan_age"), line("lag, slowed down", "orange", "plan_lag")]),
        Plot("Seam at the last chunk [rad]", [line("seam", "purple", "seam")]),
        Plot(
            "Control period [ms]",
            [line("p99", "green", "control_period_p99"), line("maximum", "red", "control_period_max")],
        ),
    ]
    return Section("Bridge", plain([time for time, _ in dated]), charts)


def _latency(session: Session) -> Section | None:
    chunks = sorted(session.chunks, key=lambda chunk: chunk.times[0])
    chunks = chunks[:: max(1, -(-len(chunks) // _POINTS))]
    if not chunks:
        return None
    columns = np.array([chunk.latency_ms for chunk in chunks]).T
    lines = [
        Line(stage, color, plain(column), points=True)
        for stage, color, column in zip(STAGES, ("grey", "orange", "green", "purple", "text"), columns, strict=True)
    ]
    return Section("Latency of each chunk", plain([chunk.times[0] for chunk in chunks]), [Plot("Latency [ms]", lines)])


def _errors(session: Session, robot: RobotConfig) -> Section | None:
    """Mean absolute error against the recorded targets, one plot for each unit."""
    error = open_loop_error(session, robot)
    means: dict[str, list[Line]] = {}
    for (group, values), color in zip(error.items(), _COLORS, strict=False):
        counted = np.isfinite(values).any(axis=(0, 2))
        mean = np.full(values.shape[1], np.nan)
        mean[counted] = np.nanmean(values[:, counted], axis=(0, 2))
        means.setdefault(robot.groups[group].unit, []).append(Line(group, color, plain(mean), points=True))
    if not means:
        return None
    steps = max(len(line.values) for lines in means.values() for line in lines)
    charts = [Plot(f"Mean absolute error [{unit}]", lines) for unit, lines in means.items()]
    return Section("Open-loop error by step of the chunk", plain(range(steps)), charts, over_time=False)
