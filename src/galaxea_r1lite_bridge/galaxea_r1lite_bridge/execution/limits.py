"""Position and velocity limits as one pure function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-9  # rad or mm: smaller changes are arithmetic, not an intervention


@dataclass(frozen=True)
class Limiter:
    """Limits of a command vector of D joints, in rad and mm.

    Attributes:
        lower: lowest position [D].
        upper: highest position [D].
        velocity: largest speed [D], rad/s and mm/s.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    velocity: NDArray[np.float64]

    def apply(
        self, previous: NDArray[np.float64], requested: NDArray[np.float64], dt: float
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the allowed target [D] and which joints were limited [D].

        A command that starts outside the position limits (an arm armed out of its box) is brought back at the
        velocity limit rather than at once.

        Args:
            previous: last command [D].
            requested: wanted command [D].
            dt: time since the last command, s, >= 0.
        """
        reach = self.velocity * dt
        inside = np.clip(requested, self.lower, self.upper)
        target = np.clip(inside, previous - reach, previous + reach)
        return target, np.abs(target - requested) > _ROUNDING
