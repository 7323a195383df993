"""What the cameras saw during a session, as one video: the head camera above the two wrists."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from fastwam_policy.data.message_types import COMPRESSED_IMAGE
from fastwam_policy.data.recordings import open_recording, stamp_ns, usable
from fastwam_policy.data.video import write_video
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image
from galaxea_r1lite_bridge.robot.config import RobotConfig

FPS = 15
_WIDTH = 480  # px


def session_video(recording: Path, robot: RobotConfig, target: Path) -> list[int]:
    """Write an mp4 of a recording's camera images, a frame for each of the first camera, and return their stamps, ns.

    Nothing is written where there are none.
    """
    stamps: list[int] = []

    def same_shape() -> Iterator[Pixels]:  # no camera changes its shape in a session
        shape = None
        for stamp, frame in frames:
            shape = shape or frame.shape
            if frame.shape == shape:
                stamps.append(stamp)
                yield frame

    with closing(_frames(recording, robot)) as frames:
        images = same_shape()
        if (first := next(images, None)) is not None:
            write_video(target, itertools.chain([first], images), FPS)
    return stamps


def _frames(recording: Path, robot: RobotConfig) -> Generator[tuple[int, Pixels], None, None]:
    """Stamp of the first camera's image, ns, and the picture."""
    newest: dict[str, Pixels] = {}
    with closing(open_recording(recording)) as reader:
        recorded = {c.topic: c for c in reader.connections if c.msgcount and c.msgtype == COMPRESSED_IMAGE}
        cameras = {f"/{camera.topic}": name for name, camera in robot.cameras.items() if f"/{camera.topic}" in recorded}
        main, *others = cameras.values() or [""]
        for connection, _, data in reader.messages([recorded[topic] for topic in cameras]) if cameras else ():
            message = usable(reader, connection, data)
            try:
                newest[cameras[connection.topic]] = decode_image(bytes(message.data) if message else b"")
            except ImageError:
                continue
            if cameras[connection.topic] == main and len(newest) == len(cameras):
                rows = [_row([newest[name] for name in names]) for names in ([main], others) if names]
                yield stamp_ns(message), np.concatenate(rows)


def _row(images: list[Pixels]) -> Pixels:
    """Images side by side, one as wide as the other."""
    width = _WIDTH // len(images)
    scaled = [_scaled(image, width) for image in images]
    row = np.zeros((max(len(image) for image in scaled), _WIDTH, 3), np.uint8)
    for place, image in enumerate(scaled):
        row[: len(image), place * width : (place + 1) * width] = image
    return row


def _scaled(image: Pixels, width: int) -> Pixels:
    height = 2 * round(image.shape[0] * width / image.shape[1] / 2)  # the codec wants even numbers
    height = min(max(height, 2), 4 * width)  # of a strip, too, it makes an image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
