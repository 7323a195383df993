"""The watchdogs of live cameras on recorded pictures: stretches that show nothing, or always the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Pixels
from fastwam_policy.runtime.camera_watch import CameraReaction, CameraWatch, CameraWatchdog
from galaxea_r1lite_bridge.robot.config import RobotConfig

Report = Callable[[str, str, Pixels], object]
"""What is done with a stretch: its kind (frozen or blind), a text, and its last picture."""

_WATCH: Final = CameraWatchdog(0.5, CameraReaction.HOLD)  # s, as in the policy node
_SMALLER: Final = 8  # pictures are compared at an eighth of their size,
_ALIKE: Final = 3.0  # of 255: there, a codec changes a picture that stands still by less
_NS: Final = 1_000_000_000


def watched(
    images: Iterable[Pixels],
    state: Mapping[str, NDArray[Any]],
    robot: RobotConfig,
    camera: str,
    fps: float,
    report: Report,
) -> Iterator[Pixels]:
    """The images of one camera, one for each row; at their end the stretches are reported.

    Args:
        images: to be passed on.
        state: measured positions by joint group [T, joints], rad and mm.
        robot: which arm carries the camera.
        camera: whose images.
        fps: rows a second.
        report: called for each kind, with the last stretch of it.
    """
    watch = CameraWatch(robot, _WATCH, _WATCH)
    likeness, before, found = 0, None, dict[str, tuple[str, Pixels]]()
    for row, image in enumerate(images):
        small = _small(image)
        if before is None or before.shape != small.shape or np.abs(small - before).max() >= _ALIKE:
            likeness, before = likeness + 1, small
        stamp = row * round(_NS / fps) + 1
        joints = {name: values[min(row, len(values) - 1)].astype(np.float64) for name, values in state.items()}
        watch.arrived(camera, stamp, likeness, joints)
        watch.shows_something(camera, stamp, image)
        if (finding := watch.finding()) is not None:
            kind = "frozen" if "FROZEN" in finding.reason.name else "blind"
            found[kind] = f"{finding.detail}, up to frame {row}", image
        yield image
    for kind, (text, image) in found.items():
        report(kind, text, image)


def _small(image: Pixels) -> NDArray[np.float32]:
    size = (max(1, image.shape[1] // _SMALLER), max(1, image.shape[0] // _SMALLER))
    some = np.ascontiguousarray(image[:: _SMALLER // 2, :: _SMALLER // 2])  # of a large picture, a third of the time
    return np.asarray(cv2.resize(some, size, interpolation=cv2.INTER_AREA), np.float32)
