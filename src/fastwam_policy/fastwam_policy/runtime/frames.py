"""Decoded frames out of an observation buffer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastwam_policy.policies.base import Frame, Pixels
from fastwam_policy.runtime.observation_buffer import ObservationBuffer, Snapshot, Waiting
from fastwam_policy.runtime.reasons import PolicyReason


class FrameSource:
    """Frames for a policy. For one thread: decoding takes milliseconds.

    Args:
        buffer: where callbacks put messages.
        joints: joint names of each group in the buffer.
        decode: image decoder of each camera; raises ImageError.
    """

    def __init__(
        self,
        buffer: ObservationBuffer,
        joints: Mapping[str, Sequence[str]],
        decode: Mapping[str, Callable[[Any], Pixels]],
    ) -> None:
        self.buffer, self._joints, self._decode = buffer, joints, decode

    def newest(self, now_ns: int, newer_than_ns: int) -> Frame | Waiting:
        """The newest frame, or why there is none. An image that does not decode is forgotten: ask again."""
        found = self.buffer.sample(now_ns, newer_than_ns)
        if isinstance(found, Waiting):
            return found
        return self._frame(found) or Waiting(PolicyReason.CORRUPT_IMAGE, "")

    def at(self, stamp_ns: int) -> Frame | None:
        """The frame nearest to a time in the past; None where nothing is left of it."""
        while (found := self.buffer.at(stamp_ns)) is not None:
            if (frame := self._frame(found)) is not None:
                return frame
        return None

    def several(self, stamps_ns: Sequence[int]) -> tuple[Frame, ...]:
        """As :meth:`at` for each time; what is not there is left out."""
        return tuple(frame for stamp in stamps_ns if (frame := self.at(stamp)) is not None)

    def _frame(self, found: Snapshot) -> Frame | None:
        images = self.buffer.decode(found, self._decode)
        return None if images is None else Frame(found.stamp_ns, images, found.positions(self._joints))
