"""Decoded frames out of an observation buffer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastwam_policy.policies.base import Frame, Pixels
from fastwam_policy.runtime.camera_watch import CameraReaction, CameraWatch
from fastwam_policy.runtime.observation_buffer import ObservationBuffer, Snapshot, Waiting
from fastwam_policy.runtime.reasons import PolicyReason


class FrameSource:
    """Frames for a policy. For one thread: decoding takes milliseconds.

    Args:
        buffer: where callbacks put messages.
        joints: joint names of each group in the buffer.
        decode: image decoder of each camera; raises ImageError.
        watch: says whether what the cameras show may be acted on.
    """

    def __init__(
        self,
        buffer: ObservationBuffer,
        joints: Mapping[str, Sequence[str]],
        decode: Mapping[str, Callable[[Any], Pixels]],
        watch: CameraWatch | None = None,
    ) -> None:
        self.buffer, self._joints, self._decode, self._watch = buffer, joints, decode, watch

    def clear(self) -> None:
        """Forget what was seen."""
        self.buffer.clear()
        if self._watch is not None:
            self._watch.clear()

    def newest(self, now_ns: int, newer_than_ns: int) -> Frame | Waiting:
        """The newest frame, or why there is none. An image that is of no use is forgotten: ask again."""
        found = self.buffer.sample(now_ns, newer_than_ns)
        frame = found if isinstance(found, Waiting) else self._seen(found)
        return self._refusal() or frame  # after a look at the pixels: what is black is not only frozen

    def at(self, stamp_ns: int) -> Frame | None:
        """The frame nearest to a time in the past; None where nothing is left of it."""
        while (found := self.buffer.at(stamp_ns)) is not None:
            if (frame := self._frame(found)) is not None:
                return frame
        return None

    def several(self, stamps_ns: Sequence[int]) -> tuple[Frame, ...]:
        """As :meth:`at` for each time; what is not there is left out."""
        return tuple(frame for stamp in stamps_ns if (frame := self.at(stamp)) is not None)

    def _refusal(self) -> Waiting | None:
        finding = None if self._watch is None else self._watch.finding()
        if finding is None:
            return None
        return Waiting(finding.reason, finding.detail, ends=finding.reaction == CameraReaction.FAULT)

    def _seen(self, found: Snapshot) -> Frame | Waiting:
        frame = self._frame(found)
        if frame is None:
            return Waiting(PolicyReason.SAME_OBSERVATION, "")
        if self._watch is None:
            return frame
        stamps = {camera: stamp_ns for camera, (stamp_ns, _) in found.images.items()}
        blind = [name for name in stamps if not self._watch.shows_something(name, stamps[name], frame.images[name])]
        for camera in blind:
            self.buffer.discard(camera, stamps[camera], PolicyReason.CAMERA_BLIND)
        return Waiting(PolicyReason.SAME_OBSERVATION, "") if blind else frame

    def newest_joints(self) -> dict[str, float]:
        """Newest position by joint name, of the groups of which there is one."""
        newest = self.buffer.newest_joints()
        return {
            name: float(value)
            for group, values in newest.items()
            for name, value in zip(self._joints[group], values, strict=True)
        }

    def _frame(self, found: Snapshot) -> Frame | None:
        images = self.buffer.decode(found, self._decode)
        return None if images is None else Frame(found.stamp_ns, images, found.positions(self._joints))
