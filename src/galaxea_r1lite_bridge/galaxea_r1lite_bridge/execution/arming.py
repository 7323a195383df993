"""Whether the arms may be armed: emergency stop, drivers, clocks, feedback, stillness, limits, workspace."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.policy_clocks import PolicyClock
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.settings import Reaction
from galaxea_r1lite_bridge.execution.watchdogs import Finding
from galaxea_r1lite_bridge.execution.workspace_guard import WorkspaceGuard

_SECOND = 1_000_000_000
_STILL_TIME, _STILL = 0.2, 0.02  # arms that moved less than 0.02 rad in 0.2 s are still
_INSIDE = 1e-3  # rad or mm: a joint resting at its limit is not outside


class ArmingGate:
    """Refuses with a reason, or says where to begin.

    Attributes:
        estop_pressed: emergency stop.
        driver_errors: text by source, of the drivers that report one.
        foreign_publishers: nodes that publish targets as well, empty: none.
    """

    def __init__(self, joints: Joints, limiter: Limiter, guard: WorkspaceGuard, *, wait_until_still: bool) -> None:
        self.estop_pressed = False
        self.driver_errors: dict[str, str] = {}
        self.foreign_publishers = ""
        self._joints, self._limiter, self._guard = joints, limiter, guard
        self._wait_until_still = wait_until_still
        self._history: deque[tuple[int, NDArray[np.float64]]] = deque()

    def see(self, steady_ns: int, pose: NDArray[np.float64] | None) -> None:
        """Measured positions [D] of one control tick; None: they are not known."""
        if pose is None:
            self._history.clear()
            return
        self._history.append((steady_ns, pose))
        while steady_ns - self._history[0][0] > _STILL_TIME * _SECOND:
            self._history.popleft()

    def refusal(self, findings: Sequence[Finding], clock: PolicyClock | None = None) -> tuple[Reason, str]:
        """Why the arms must not be armed now, and what it is about; NONE: they may.

        Args:
            findings: what the watchdogs found, worst first.
            clock: that of the policies' clocks which differs most.
        """
        if self.estop_pressed:
            return Reason.ESTOP_PRESSED, ""
        if self.driver_errors:
            return Reason.DRIVER_ERROR, "; ".join(f"{source}: {text}" for source, text in self.driver_errors.items())
        if self.foreign_publishers:
            return Reason.FOREIGN_PUBLISHER, self.foreign_publishers
        if findings and findings[0].reaction >= Reaction.HOLD:
            return findings[0].reason, findings[0].detail
        if clock is not None and clock.differs:
            return Reason.CLOCKS_DIFFER, clock.text
        if not self._history:
            return Reason.FEEDBACK_MISSING, ""
        if self._wait_until_still and not self._still():
            return Reason.NOT_STILL, ""
        pose = self._history[-1][1]
        if outside := self.outside(pose):
            return Reason.OUTSIDE_LIMITS, outside
        barrier = self._guard.outside(pose)
        return (Reason.NONE, "") if barrier is None else (Reason.OUTSIDE_WORKSPACE, barrier.detail)

    def outside(self, position: NDArray[np.float64]) -> str:
        """Joints that are outside their limits at `position` [D], each with both; empty: none."""
        limiter, joints = self._limiter, self._joints
        return ", ".join(
            f"{joints.every_name[i]} at {position[i]:.5g}, not {limiter.lower[i]:g} to {limiter.upper[i]:g} "
            f"{'rad' if joints.angular[i] else 'mm'}"
            for i in np.flatnonzero(limiter.outside(position, _INSIDE)).tolist()
        )

    def start(self) -> Motion:
        """Rest at the pose measured last, where nothing refuses it."""
        pose, policy = self._history[-1][1].copy(), self._joints.policy
        pose[policy] = np.clip(pose, self._limiter.lower, self._limiter.upper)[policy]
        return Motion(pose, np.zeros_like(pose))

    def _still(self) -> bool:
        """Whether the joints in rad have been still for a while; false while that is not known."""
        if self._history[-1][0] - self._history[0][0] < 0.5 * _STILL_TIME * _SECOND:
            return False
        moved = np.ptp(np.array([pose for _, pose in self._history]), axis=0)
        return bool((moved[self._joints.angular] < _STILL).all())
