"""Arms that hover: a policy that sees the same again predicts the same again, and never gets further with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Frame
from galaxea_r1lite_bridge.robot.config import RobotConfig

_WINDOW_NS = 1_000_000_000
_GAP_NS = 2 * _WINDOW_NS  # between two looks; after a longer one nobody knows what moved
_STILL, _STILL_MM = 0.2, 8.0  # rad and mm that are hardly a motion in that time: hovering arms creep


class Stillness:
    """Whether all joints of arms and grippers have hardly moved for a second."""

    def __init__(self, robot: RobotConfig) -> None:
        self._names = robot.joint_names
        self._still = np.where(robot.is_arm, _STILL, _STILL_MM)
        self._seen: deque[tuple[int, NDArray[np.float64]]] = deque()

    def see(self, stamp_ns: int, joints: Mapping[str, float]) -> bool:
        """Whether that is so at this time, with these positions by joint name, rad and mm; one not given counts not."""
        if self._seen and not 0 < stamp_ns - self._seen[-1][0] <= _GAP_NS:
            self._seen.clear()
        self._seen.append((stamp_ns, np.array([joints.get(name, np.nan) for name in self._names])))
        while len(self._seen) > 1 and stamp_ns - self._seen[1][0] >= _WINDOW_NS:
            self._seen.popleft()
        moved = np.ptp([positions for _, positions in self._seen], axis=0)
        known = ~np.isnan(moved)
        long = stamp_ns - self._seen[0][0] >= _WINDOW_NS
        return long and bool(known.any() and (moved[known] < self._still[known]).all())

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()


class Replanning:
    """When the next inference begins: after the interval, or later where the arms hover.

    Args:
        robot: whose arms.
        interval: s from one inference's start to the next.
        hover_interval: the same where the arms hover, so that they follow the chunk further; 0: the same.

    Attributes:
        hovers: whether they did at the last inference.
    """

    def __init__(self, robot: RobotConfig, interval: float, hover_interval: float = 0.0) -> None:
        self._interval_ns, self._hover_ns = round(1e9 * interval), round(1e9 * max(interval, hover_interval))
        self._stillness = Stillness(robot)
        self.hovers = False

    def after(self, frame: Frame, *, followed: bool) -> int:
        """Ns from the start of the inference on this frame to that of the next.

        Arms hover only where a chunk is `followed`: otherwise they are not meant to move.
        """
        still = followed and self._stillness.see(frame.stamp_ns, frame.joints)
        self.hovers = still and self._hover_ns > self._interval_ns
        if still or not followed:
            self._stillness.forget()
        return self._hover_ns if self.hovers else self._interval_ns

    def reset(self) -> None:
        """A new episode, task or scene begins."""
        self._stillness.forget()
        self.hovers = False
