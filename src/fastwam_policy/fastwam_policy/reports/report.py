"""One self-contained HTML page for a session: figures, predicted and recorded joints, latency, cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from fastwam_policy.data.message_types import COMPRESSED_IMAGE
from fastwam_policy.data.recordings import open_recording, usable
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image
from fastwam_policy.reports.page import data_url, png, style_figures, write_page
from fastwam_policy.reports.session import STAGES, Session, read_session
from fastwam_policy.reports.summary import open_loop_error, rows, summarise
from fastwam_policy.reports.video import session_video
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.robot.config import RobotConfig

_THUMBNAILS = 5
_THUMBNAIL_WIDTH = 240  # px
_STRIPS = 6  # imagined videos shown, 40 KB each of the shipped bundle
_CHUNKS_DRAWN = 12  # more lines than this hide each other


def write_report(
    path: Path,
    session: Session,
    summary: dict[str, Any],
    robot: RobotConfig,
    source: Path | None,
    title: str,
    video: Path | None = None,
) -> None:
    """Write the page to `path`; `source` is a recording with camera images, `video` an mp4 to show."""
    style_figures()
    write_page(
        path,
        "report.html.jinja",
        title=title,
        video=data_url("video/mp4", video.read_bytes()) if video else None,
        random=summary["random_weights"],
        rows=rows(summary),
        imagined=_strips(session),
        thumbnails=_thumbnails(source, robot) if source else [],
        figures=[
            (name, png(figure))
            for name, figure in (
                ("Predicted chunks against the recorded targets", _joints(session, robot)),
                ("Open-loop error by step of the chunk", _errors(session, robot)),
                ("Latency of each chunk", _latency(session)),
                ("Bridge", _bridge(session)),
            )
            if figure is not None
        ],
    )


def report_session(folder: Path, robot: RobotConfig, title: str, bag: Path | None = None) -> dict[str, Any]:
    """Figures of the session in `folder`, which holds recording/; writes report.html, and video.mp4 of its own images.

    `bag` is the recording that was replayed, for its camera images.

    Raises:
        ConfigError: the recording cannot be read.
    """
    recording, video = folder / "recording", folder / "video.mp4"
    session = read_session(recording, robot)
    summary = summarise(session, robot)
    filmed = bag is None and session_video(recording, robot, video)
    write_report(folder / "report.html", session, summary, robot, bag or recording, title, video if filmed else None)
    return summary


def _joints(session: Session, robot: RobotConfig) -> Figure | None:
    if not session.chunks:
        return None
    names, columns = robot.joint_names, 4
    figure = Figure(figsize=(12, 2 * -(-len(names) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(names) // columns), columns, squeeze=False).flat
    drawn = session.chunks[:: max(1, len(session.chunks) // _CHUNKS_DRAWN)]
    for group, place in robot.slices.items():
        for column, index in enumerate(range(len(names))[place]):
            axis = next(axes)
            for kind, series, style in (
                ("measured", session.feedback, {"color": "0.6", "lw": 2}),
                ("recorded target", session.recorded, {"color": "k", "lw": 1}),
                ("command sent", session.commands, {"color": "tab:orange", "lw": 1}),
            ):
                if group in series:
                    axis.plot(series[group].times, series[group].positions[:, column], label=kind, **style)
            for number, chunk in enumerate(drawn):
                axis.plot(
                    chunk.times,
                    chunk.actions[:, index],
                    color="tab:blue",
                    lw=0.6,
                    alpha=0.7,
                    label=None if number else "predicted chunk",
                )
            axis.set_title(f"{names[index]} [{robot.units[index]}]")
            axis.set_xlim(0, session.duration)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="lower right", ncols=2)
    for axis in axes:
        axis.set_visible(False)
    return figure


def _errors(session: Session, robot: RobotConfig) -> Figure | None:
    error = open_loop_error(session, robot)
    if not error:
        return None
    figure = Figure(figsize=(12, 2.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for group, values in error.items():
        unit = robot.groups[group].unit
        counted = np.isfinite(values).any(axis=(0, 2))
        mean = np.nanmean(values[:, counted], axis=(0, 2))
        axes[int(unit == "mm")].plot(np.flatnonzero(counted), mean, marker=".", label=group)
        axes[int(unit == "mm")].set(xlabel="step of the chunk", ylabel=f"mean absolute error [{unit}]")
    for axis in axes:
        axis.set_ylim(bottom=0)
        if axis.lines:
            axis.legend()
    return figure


def _latency(session: Session) -> Figure | None:
    if not session.chunks:
        return None
    figure = Figure(figsize=(12, 2.4), layout="constrained")
    axis = figure.subplots()
    latency = np.array([chunk.latency_ms for chunk in session.chunks])
    times, bottom = [chunk.times[0] for chunk in session.chunks], np.zeros(len(latency))
    for stage, column in zip(STAGES[:-1], latency.T[:-1], strict=True):
        axis.bar(times, column, width=0.12, bottom=bottom, label=stage)
        bottom += column
    axis.set(xlabel="time of the observation [s]", ylabel="ms", xlim=(0, session.duration))
    axis.legend(ncols=4)
    return figure


def _bridge(session: Session) -> Figure | None:
    status = [s for s in session.bridge_status if s.header.stamp.sec]  # until a simulated clock begins, stamps are 0
    if not status:
        return None
    begin = status[0].header.stamp
    times = [s.header.stamp.sec - begin.sec + (s.header.stamp.nanosec - begin.nanosec) / 1e9 for s in status]
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    states, upper, lower = figure.subplots(3, 1, sharex=True)
    states.plot(times, [s.state for s in status], color="0.3", ds="steps-post")
    states.set_yticks(range(len(State)), [state.name.lower() for state in State])
    before = 0
    for at, one in zip(times, status, strict=True):
        if one.reason and one.reason != before:
            states.annotate(str(one.reason), (at, one.state), fontsize=7, xytext=(2, 3), textcoords="offset points")
        before = one.reason
    upper.plot(times, [s.plan_age for s in status], label="plan age [s]")
    upper.plot(times, [s.plan_lag for s in status], label="plan lag, slowed down [s]")
    upper.plot(times, [s.seam for s in status], label="seam at the last chunk [rad]")
    lower.plot(times, [s.control_period_p99 for s in status], label="control period p99 [ms]")
    lower.plot(times, [s.control_period_max for s in status], label="control period max [ms]")
    lower.set(xlabel="time [s]")
    for axis in (upper, lower):
        axis.legend(ncols=3)
    return figure


def _thumbnails(source: Path, robot: RobotConfig) -> list[tuple[str, list[str]]]:
    """For each camera, `_THUMBNAILS` images of the recording as data URLs, evenly in time."""
    result = []
    reader = open_recording(source)
    try:
        times = np.linspace(reader.start_time, reader.end_time, _THUMBNAILS + 1)[:-1].astype(np.int64)
        for name, camera in robot.cameras.items():
            connections = [
                c for c in reader.connections if c.topic == f"/{camera.topic}" and c.msgtype == COMPRESSED_IMAGE
            ]
            if not connections:
                continue
            images = []
            for time_ns in times:
                for connection, _, data in reader.messages(connections, start=int(time_ns)):
                    message = usable(reader, connection, data)
                    try:
                        image = decode_image(bytes(message.data) if message else b"")
                    except ImageError:
                        continue
                    images.append(data_url("image/jpeg", _thumbnail(image)))
                    break
            result.append((name, images))
    finally:
        reader.close()
    return result


def _thumbnail(image: Pixels) -> bytes:
    """A small JPEG of an image, which of a strip is as high as wide."""
    height = min(max(1, round(image.shape[0] * _THUMBNAIL_WIDTH / image.shape[1])), _THUMBNAIL_WIDTH)
    small = cv2.resize(image, (_THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()


def _strips(session: Session) -> list[str]:
    """At most `_STRIPS` of the imagined videos as data URLs, evenly in time."""
    count = len(session.imagined)
    places = np.linspace(0, count - 1, min(count, _STRIPS)).round().astype(int)
    return [data_url("image/jpeg", bytes(session.imagined[place].data)) for place in places]
