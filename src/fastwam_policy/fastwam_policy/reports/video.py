"""What the cameras saw during a session, as one video: the head camera above the two wrists."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fastwam_policy.data.recordings import open_recording
from fastwam_policy.data.video import write_video
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image
from galaxea_r1lite_bridge.robot.config import RobotConfig

_FPS = 15
_WIDTH = 480  # px


def session_video(recording: Path, robot: RobotConfig, target: Path) -> bool:
    """Write an mp4 of a recording's camera images, a frame for each of the first camera; False when it has none."""
    main, *others = robot.cameras
    newest: dict[str, Pixels] = {}
    frames: list[Pixels] = []
    with closing(open_recording(recording)) as reader:
        cameras = {f"/{camera.topic}": name for name, camera in robot.cameras.items()}
        wanted = [c for c in reader.connections if c.topic in cameras and c.msgtype.endswith("CompressedImage")]
        if not wanted:
            return False
        for connection, _, data in reader.messages(wanted):
            message: Any = reader.deserialize(data, connection.msgtype)
            try:
                newest[cameras[connection.topic]] = decode_image(bytes(message.data))
            except ImageError:
                continue
            if cameras[connection.topic] == main and len(newest) == len(cameras):
                below = [_scaled(newest[name], _WIDTH // len(others)) for name in others]
                frames.append(np.concatenate([_scaled(newest[main], _WIDTH), np.concatenate(below, axis=1)]))
    if not frames:
        return False
    write_video(target, frames, _FPS)
    return True


def _scaled(image: Pixels, width: int) -> Pixels:
    height = 2 * round(image.shape[0] * width / image.shape[1] / 2)  # the codec wants even numbers
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
