"""How fast a plan may be followed: within the speed limits, slowly through its bends, waiting for the arms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.limits import Limiter, Motion

LOOK_AHEAD = (0.04, 0.1, 0.2, 0.3, 0.4)
"""s of the plan checked against acceleration limits and workspace."""
_LOOK_AHEAD = np.array(LOOK_AHEAD)[:, None]
_FOLLOW_TIME = 0.1  # s: a plan waits when its target is further ahead than a joint moves in this time at its limit


@dataclass
class Speed:
    """The share 0..1 of its own speed at which a plan may go on; all joints wait for the slowest, so it keeps its path.

    Attributes:
        limiter: limits of all joints.
        joints: [D], those that count.
    """

    limiter: Limiter
    joints: NDArray[np.bool_]
    _behind: float = 0.0

    def rate(self, velocities: NDArray[np.float64]) -> float:
        """Rate for a plan with these velocities now and LOOK_AHEAD, [1 + K, D]."""
        share = 1.0 / max(self.share(velocities[0]), 1e-9)
        return min(1.0, share, self._bends(velocities)) * max(0.0, 1.0 - self._behind)

    def share(self, velocity: NDArray[np.float64]) -> float:
        """Largest share of its speed limit that a joint has at `velocity` [D]."""
        return float((np.abs(velocity) / self.limiter.velocity)[self.joints].max(initial=0.0))

    def note(self, motion: Motion, target: NDArray[np.float64]) -> None:
        """Remember how far a command is behind the plan's `target` [D]."""
        inside = np.clip(target, self.limiter.lower, self.limiter.upper)
        off = np.abs(inside - motion.position) / (self.limiter.velocity * _FOLLOW_TIME)
        self._behind = float(off[self.joints].max(initial=0.0))

    def reset(self) -> None:
        """Nothing is followed: no command is behind."""
        self._behind = 0.0

    def _bends(self, velocities: NDArray[np.float64]) -> float:
        """At `rate` a change of velocity by dv over t needs the acceleration rate^2 dv / t."""
        change = np.abs(velocities[1:] - velocities[0])[:, self.joints]
        possible = _LOOK_AHEAD * self.limiter.acceleration[self.joints]
        return float(np.sqrt((possible / np.maximum(change, 1e-9)).min(initial=1.0)))
