"""One self-contained HTML page for a session: its film and timeline, plots tied to them, figures, cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fastwam_policy.data.message_types import COMPRESSED_IMAGE
from fastwam_policy.data.recordings import open_recording, usable
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image
from fastwam_policy.reports.page import data_url, uplot, write_page
from fastwam_policy.reports.plots import plots as session_plots
from fastwam_policy.reports.session import Session, read_session
from fastwam_policy.reports.summary import headline, rows, summarise
from fastwam_policy.reports.timeline import timeline
from fastwam_policy.reports.video import FPS, session_video
from galaxea_r1lite_bridge.robot.config import RobotConfig

_THUMBNAILS = 5
_THUMBNAIL_WIDTH = 240  # px
_STRIPS = 6  # imagined videos shown, 40 KB each of the shipped bundle


def write_report(
    path: Path,
    session: Session,
    summary: dict[str, Any],
    robot: RobotConfig,
    source: Path | None,
    title: str,
    film: Path | None = None,
    frames: Sequence[float] = (),
) -> None:
    """Write the page to `path`; `source` is a recording with camera images, `film` an mp4 and `frames` its times, s."""
    plots = session_plots(session, robot, frames, FPS)
    write_page(
        path,
        "report.html.jinja",
        title=title,
        headline=headline(summary),
        video=data_url("video/mp4", film.read_bytes()) if film else None,
        random=summary["random_weights"],
        rows=rows(summary),
        timeline=timeline(session),
        plots=plots,
        imagined=_strips(session),
        thumbnails=_thumbnails(source, robot) if source else [],
        **uplot(),
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
    frames = [] if bag else session_video(recording, robot, video)
    seconds = [(stamp - session.begin_ns) / 1e9 for stamp in frames]
    film = video if frames else None
    write_report(folder / "report.html", session, summary, robot, bag or recording, title, film, seconds)
    return summary


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
