"""What the arms may not enter, and braking before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.workspace import KINDS, Workspace

_BRAKING_PARTS = 8  # the way of braking is checked before and after each


@dataclass
class WorkspaceGuard:
    """Allows only motions from which braking ends inside the workspace.

    From a place that is outside (the torso was moved) what leads no further out is allowed.

    Attributes:
        workspace: what must not be left; None: nothing.
        limiter: how fast each joint brakes.
    """

    workspace: Workspace | None
    limiter: Limiter

    def inside(self, position: NDArray[np.float64]) -> bool:
        """Whether all limits are kept at `position` [D]."""
        return self.workspace is None or bool(self.workspace.clearance(position[None]).min() >= 0)

    def led(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions [K, D] of a plan, led along the table where they dip into it a little."""
        return positions if self.workspace is None else self.workspace.lifted(positions)

    def room(self, position: NDArray[np.float64], ahead: NDArray[np.float64]) -> tuple[float, Reason | None]:
        """Rate 0..1 at which a plan may go on from `position` [D], less the sooner it leaves the workspace, and where.

        Args:
            position: last command.
            ahead: positions [K, D] of the plan, the first one soonest.
        """
        outside = self._outside(position, ahead)
        leaves = outside.any(axis=1)
        if not leaves.any():
            return 1.0, None
        first = int(leaves.argmax())
        return first / len(ahead), KINDS[int(outside[first].argmin())]

    def blocked(self, position: NDArray[np.float64], motion: Motion) -> Reason | None:
        """The limit that `motion`, or braking from it, would pass, if any; `position` [D] is the command before."""
        worst = self._outside(position, self.limiter.braking(motion, _BRAKING_PARTS)).min(axis=0)
        return KINDS[int(worst.argmin())] if worst.any() else None

    def _outside(self, position: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Clearance of each limit [K, KINDS] where it is negative and less than at `position` [D]; 0 elsewhere."""
        if self.workspace is None:
            return np.zeros((len(positions), len(KINDS)))
        clearance = self.workspace.clearance(np.concatenate([position[None], positions]))
        now, then = clearance[0], clearance[1:]
        return np.where((then < 0) & (then < now), then, 0.0)
