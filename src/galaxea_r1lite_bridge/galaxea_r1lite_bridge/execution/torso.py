"""Where the torso is: what no policy moves is measured, and measurements are noisy."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

_WINDOW_NS = 200_000_000
_WIDER, _TOO_WIDE = 1.4, 4.0  # times half the range: what the uncertainty is taken as, so that it lasts, and dropped at


class TorsoEstimate:
    """The median of what was measured over the last 0.2 s, and how far it may be off.

    The median is off by half the range of the measurements at most: their noise, of whatever distribution, lies on both
    sides of the truth, and a torso that moves steadily is ahead of its median by half the range. Both figures stay
    as they are while what is measured agrees with them, so that clearances do not move with each measurement.

    Attributes:
        position: rad [T].
        uncertainty: rad [T] by which `position` may be off.
    """

    def __init__(self, joints: int) -> None:
        self.position = self.uncertainty = np.zeros(joints)
        self._seen: deque[tuple[int, NDArray[np.float64]]] = deque()

    @property
    def known(self) -> bool:
        """Whether anything was measured since the last reset."""
        return bool(self._seen)

    def reset(self) -> None:
        """The torso is commanded: where it was measured before counts no more, and where it is told to be is known."""
        self._seen.clear()
        self.uncertainty = np.zeros_like(self.uncertainty)

    def see(self, steady_ns: int, measured: NDArray[np.float64]) -> None:
        """A measurement [T], rad."""
        fresh = not self.known
        self._seen.append((steady_ns, measured.copy()))
        while steady_ns - self._seen[0][0] > _WINDOW_NS:
            self._seen.popleft()
        rows = np.sort([row for _, row in self._seen], axis=0)
        middle = (rows[(len(rows) - 1) // 2] + rows[len(rows) // 2]) / 2
        spread = (rows[-1] - rows[0]) / 2
        explained = np.abs(middle - self.position) + spread <= self.uncertainty
        if fresh or not explained.all() or (self.uncertainty > _TOO_WIDE * spread).any():
            self.position, self.uncertainty = middle, _WIDER * spread
