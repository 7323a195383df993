"""Grippers that do not follow each small change of mind of a policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass
class Hysteresis:
    """Joints go on in the direction in which they last moved, and turn back only for more than `band`.

    A gripper that closes holds the smallest opening asked for, one that opens the largest, until it is asked to turn.
    """

    joints: NDArray[np.bool_]
    """[D], which ones; the others follow as they are asked to."""
    band: float
    """mm; 0: they all do."""

    def __post_init__(self) -> None:
        self._place: Vector | None = None

    def turned(self, previous: Vector, position: Vector, velocity: Vector) -> tuple[Vector, Vector]:
        """Position and velocity [D] to go to instead of these.

        Args:
            previous: last command [D], from which it begins.
            position: asked for, rad and mm.
            velocity: of that, rad/s and mm/s.
        """
        if self.band == 0:
            return position, velocity
        if self._place is None:
            self._place, self._direction = previous, np.zeros_like(previous)
        way = position - self._place
        follows = ~self.joints | (way * self._direction > 0) | (np.abs(way) > self.band)
        self._direction = np.where(follows, np.sign(way), self._direction)
        self._place = np.where(follows, position, self._place)
        return self._place, np.where(follows, velocity, 0.0)

    def reset(self) -> None:
        """It begins anew, from the next last command."""
        self._place = None
