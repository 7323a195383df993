"""A plan: one action chunk on the time axis, sampled at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.joint_gate import JointsRefusedError, places

_SECOND = 1_000_000_000
_LONGEST_STEP_NS = 10 * _SECOND  # between two rows of a chunk; with the longest message's, hours
_MOVE_STEP_NS = _SECOND // 15
_PEAK = 15 / 8  # of a minimum-jerk motion's speed over its mean
_MAX_STEPS = 2000  # of a slow move, which is a matter of minutes; a longer one gets longer steps, not more memory


@dataclass(frozen=True)
class Chunk:
    """An action chunk as it arrives.

    Attributes:
        chunk_id: counts up within a session.
        epoch: counts up within a session with every reset, task or new instruction.
        stamp_ns: time of the observation it was computed from.
        step_ns: time between two steps.
        names: joint name of each column.
        positions: absolute targets [H, D] in rad and mm; row k is for stamp_ns + k * step_ns.
        committed_steps: leading rows that were taken over unchanged from the plan that was running.
        session: which activation of which policy it comes from, a random number; 0 like any other.
    """

    chunk_id: int
    epoch: int
    stamp_ns: int
    step_ns: int
    names: Sequence[str]
    positions: NDArray[np.float64]
    committed_steps: int = 0
    session: int = 0

    def ordered(self, names: Sequence[str]) -> Chunk | None:
        """The same chunk with its columns in the order of `names`; None where joints, shape or step do not fit."""
        if self.positions.ndim != 2 or len(self.positions) == 0 or not 0 < self.step_ns <= _LONGEST_STEP_NS:
            return None
        if not len(self.names) == len(names) == self.positions.shape[1]:
            return None
        try:
            order = places(self.names, names)
        except JointsRefusedError:
            return None
        return replace(self, names=list(names), positions=self.positions[:, order])

    @property
    def end_ns(self) -> int:
        """Time of the last step."""
        return self.stamp_ns + (len(self.positions) - 1) * self.step_ns

    def sample(self, now_ns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position [D] and velocity [D] (rad/s, mm/s) at `now_ns`."""
        positions, velocities = self.samples(np.array([now_ns]))
        return positions[0], velocities[0]

    def samples(self, times_ns: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions [K, D] and velocities [K, D] (rad/s, mm/s) at several times [K].

        Between steps a cubic Hermite curve with central differences as slopes: position and velocity are continuous.
        Before the first and after the last step that step is held, at rest.
        """
        last = len(self.positions) - 1
        if last == 0:
            held = np.repeat(self.positions, len(times_ns), axis=0)
            return held, np.zeros_like(held)
        place = np.minimum(np.maximum((times_ns - self.stamp_ns) / self.step_ns, 0.0), last)
        step = np.minimum(place.astype(int), last - 1)
        u = (place - step)[:, None]
        v = 1 - u
        a, slope_a = self.positions[step], self._slopes[step]
        b, slope_b = self.positions[step + 1], self._slopes[step + 1]
        position = (1 + 2 * u) * v**2 * a + u * v**2 * slope_a + u**2 * (3 - 2 * u) * b - u**2 * v * slope_b
        change = 6 * u * v * (b - a) + v * (1 - 3 * u) * slope_a + u * (3 * u - 2) * slope_b
        moving = (place > 0) & (place < last)
        return position, np.where(moving[:, None], change * (1e9 / self.step_ns), 0.0)

    @cached_property
    def _slopes(self) -> NDArray[np.float64]:
        """Change a step at each of several steps [H, D]; zero at the end, where the plan comes to rest."""
        slopes = np.zeros_like(self.positions)
        slopes[0] = self.positions[1] - self.positions[0]
        slopes[1:-1] = (self.positions[2:] - self.positions[:-2]) / 2
        return slopes


def minimum_jerk(start: NDArray[np.float64], goal: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Positions [steps + 1, D] of the smoothest motion from rest to rest; its peak speed is 15/8 of the mean."""
    u = np.linspace(0, 1, steps + 1)[:, None]
    return start + (10 * u**3 - 15 * u**4 + 6 * u**5) * (goal - start)


def slow_move(start: NDArray[np.float64], goal: NDArray[np.float64], speed: NDArray[np.float64], now_ns: int) -> Chunk:
    """Chunk from rest at `start` to rest at `goal` [D] on which no joint is faster than `speed` [D]; it begins now."""
    duration = _PEAK * float((np.abs(goal - start) / speed).max()) * _SECOND
    steps = int(np.clip(np.ceil(duration / _MOVE_STEP_NS), 1, _MAX_STEPS))
    return Chunk(0, 0, now_ns, max(_MOVE_STEP_NS, int(np.ceil(duration / steps))), [], minimum_jerk(start, goal, steps))
