"""Grippers that do not follow each small change of mind of a policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass
class Hysteresis:
    """Joints go on in the direction in which they last moved, and turn back only for more than `band`.

    A gripper that closes keeps the smallest opening asked for, one that opens the largest, until it is asked to turn.

    Attributes:
        joints: [D], which ones.
        lower: [D], position limits: what is asked for beyond them counts as these, rad and mm.
        upper: [D].
        band: mm; 0: they follow as they are asked to.
    """

    joints: Mask
    lower: Vector
    upper: Vector
    band: float

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """It begins anew: whatever is asked for next is followed, and is the direction."""
        self._place: Vector | None = None

    def held(self, previous: Vector, asked: Vector) -> tuple[Mask, Vector]:
        """Which joints [D] do not follow when a position is asked for, and where [D] they stay.

        Args:
            previous: last command [D], from which it begins.
            asked: [D], rad and mm.
        """
        if self.band == 0:
            return np.zeros_like(self.joints), asked
        asked = np.minimum(np.maximum(asked, self.lower), self.upper)
        if self._place is None:
            self._place, self._direction = previous, np.zeros_like(previous)
        way = asked - self._place
        held = self.joints & (np.abs(way) <= self.band) & (way * self._direction < 0)
        self._direction = np.where(held | (way == 0), self._direction, np.sign(way))
        self._place = np.where(held, self._place, asked)
        return held, self._place
