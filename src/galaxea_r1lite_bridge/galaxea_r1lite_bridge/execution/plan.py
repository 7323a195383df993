"""A plan: one action chunk on the time axis, sampled at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chunk:
    """An action chunk as it arrives.

    Attributes:
        chunk_id: counts up within an epoch.
        epoch: changes with every reset, stop or new instruction.
        stamp_ns: time of the observation it was computed from.
        step_ns: time between two steps.
        names: joint name of each column.
        positions: absolute targets [H, D] in rad and mm; row k is for stamp_ns + k * step_ns.
    """

    chunk_id: int
    epoch: int
    stamp_ns: int
    step_ns: int
    names: Sequence[str]
    positions: NDArray[np.float64]

    def ordered(self, names: Sequence[str]) -> Chunk | None:
        """The same chunk with its columns in the order of `names`; None where joints or shape do not match."""
        if sorted(self.names) != sorted(names) or self.positions.ndim != 2 or len(self.positions) == 0:
            return None
        if self.positions.shape[1] != len(names) or self.step_ns <= 0:
            return None
        order = [list(self.names).index(name) for name in names]
        return replace(self, names=list(names), positions=self.positions[:, order])

    @property
    def end_ns(self) -> int:
        """Time of the last step."""
        return self.stamp_ns + (len(self.positions) - 1) * self.step_ns

    def sample(self, now_ns: int) -> NDArray[np.float64]:
        """Target [D] at `now_ns`: linear between steps, the first and last step outside of them."""
        place = (now_ns - self.stamp_ns) / self.step_ns
        last = len(self.positions) - 1
        if place <= 0:
            return self.positions[0]
        if place >= last:
            return self.positions[last]
        step = int(place)
        return self.positions[step] + (place - step) * (self.positions[step + 1] - self.positions[step])
