"""From one chunk to the next: a plan made of the newest chunks, continuous in position and velocity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.plan import Chunk

Blending = Literal["switch", "ensemble", "rtc"]
BLENDINGS: tuple[Blending, ...] = get_args(Blending)

_KEPT = 8  # chunks: with the newest replan intervals (50 ms) more than any fade or ensemble needs
Vector = NDArray[np.float64]
Rows = NDArray[np.float64]  # [K, D], or [K, 1] for all D alike
Times = NDArray[np.int64]  # [K], ns


@dataclass
class _Entry:
    chunk: Chunk
    begin_ns: int
    fade_ns: int
    lag_ns: int = 0

    def samples(self, times_ns: Times) -> tuple[Rows, Rows]:
        return self.chunk.samples(times_ns - self.lag_ns)

    def faded_in(self, now_ns: int) -> bool:
        return self.fade_ns == 0 or now_ns >= self.begin_ns + self.fade_ns

    def weight(self, times_ns: Times) -> tuple[Rows | float, Rows | float]:
        """How far this chunk is faded in at some times, 0..1, and the change of that per second, [K, 1]."""
        if self.fade_ns == 0:
            return 1.0, 0.0
        return _smooth_step((times_ns - self.begin_ns) / self.fade_ns, self.fade_ns / 1e9)

    def fade_out(self, times_ns: Times, window: float) -> tuple[Rows | float, Rows | float]:
        """The same of how an older chunk leaves an average, gradually in its last `window` s."""
        if window == 0:
            return 1.0, 0.0
        left, change = _smooth_step((self.chunk.end_ns + self.lag_ns - times_ns) / 1e9 / window, window)
        return left, -change


@dataclass
class Plan:
    """The chunks in use and how one becomes the next.

    Modes: ``switch`` cross-fades from the running plan to the new chunk over `window`. ``ensemble`` averages the last
    chunks, each newer one exp(`decay`) times as heavy as the one before; a new chunk fades in likewise. ``rtc`` takes a
    chunk over at once while the steps that it was frozen to are being executed (real-time chunking, arXiv 2506.07339:
    there it equals the running plan), and cross-fades otherwise.

    Every chunk is followed on its own time axis, which lies behind the clock by the chunk's lag: a plan that must be
    slowed down is delayed, so it keeps its path.
    """

    mode: Blending
    window: float
    """s, length of a cross-fade."""
    decay: float
    """Mode ensemble: newer chunks weigh exp(decay) times as much."""
    _entries: list[_Entry] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def newest(self) -> Chunk | None:
        """Chunk that came last."""
        return self._entries[-1].chunk if self._entries else None

    @property
    def lag_ns(self) -> int:
        """How far the newest chunk lies behind the clock."""
        return self._entries[-1].lag_ns if self._entries else 0

    @property
    def end_ns(self) -> int:
        """Clock time of the newest chunk's last step."""
        return self._entries[-1].chunk.end_ns + self._entries[-1].lag_ns

    def add(self, chunk: Chunk, now_ns: int) -> None:
        """Take a chunk into use from now on."""
        frozen_until = chunk.stamp_ns + (chunk.committed_steps - 1) * chunk.step_ns
        at_once = not self._entries or (self.mode == "rtc" and now_ns <= frozen_until)
        self._entries.append(_Entry(chunk, now_ns, 0 if at_once else round(self.window * 1e9)))
        del self._entries[:-_KEPT]
        self.prune(now_ns)  # beside a chunk that is over, one that has yet to fade in would be averaged with nothing

    def clear(self) -> None:
        """Forget all chunks."""
        self._entries.clear()

    def delay(self, by_ns: int) -> None:
        """Let the plan wait: all chunks go on that much later."""
        for entry in self._entries:
            entry.lag_ns += by_ns

    def prune(self, now_ns: int) -> None:
        """Forget chunks that no longer count."""
        if self.mode == "ensemble":
            self._entries = [e for e in self._entries if now_ns - e.lag_ns < e.chunk.end_ns] or self._entries[-1:]
        else:
            faded_in = [i for i, entry in enumerate(self._entries) if entry.faded_in(now_ns)]
            del self._entries[: faded_in[-1] if faded_in else 0]

    def sample(self, now_ns: int) -> tuple[Vector, Vector]:
        """Position [D] and velocity [D] (rad/s, mm/s) at `now_ns`; needs a chunk."""
        positions, velocities = self.samples(np.array([now_ns]))
        return positions[0], velocities[0]

    def samples(self, times_ns: Times) -> tuple[Rows, Rows]:
        """Positions [K, D] and velocities [K, D] (rad/s, mm/s) at several times [K]; needs a chunk."""
        if self.mode == "ensemble":
            return self._average(times_ns)
        position, velocity = self._entries[0].samples(times_ns)
        for entry in self._entries[1:]:
            weight, change = entry.weight(times_ns)
            p, v = entry.samples(times_ns)
            velocity = (1 - weight) * velocity + weight * v + change * (p - position)
            position = (1 - weight) * position + weight * p
        return position, velocity

    def _average(self, times_ns: Times) -> tuple[Rows, Rows]:
        """Weighted mean. A chunk's age counts the newer ones by how far they are faded in, so weights never jump."""
        nothing: Rows = np.zeros((len(times_ns), 1))
        age = age_change = total = total_change = nothing
        rows = []
        for index in range(len(self._entries) - 1, -1, -1):
            entry = self._entries[index]
            fade, fade_change = entry.weight(times_ns) if index else (1.0, 0.0)
            newest = index == len(self._entries) - 1
            out, out_change = (1.0, 0.0) if newest else entry.fade_out(times_ns, self.window)
            scale = np.exp(-self.decay * age)
            weight = fade * out * scale
            change = scale * (fade_change * out + fade * out_change - fade * out * self.decay * age_change)
            p, v = entry.samples(times_ns)
            rows.append((weight, change, p, v))
            age, age_change = age + fade, age_change + fade_change
            total, total_change = total + weight, total_change + change
        position = sum(weight * p for weight, _, p, _ in rows) / total
        velocity = sum(weight * v + change * p for weight, change, p, v in rows) / total - position * (
            total_change / total
        )
        return position, velocity


def _smooth_step(u: NDArray[np.float64], seconds: float) -> tuple[Rows, Rows]:
    """From 0 at `u` = 0 to 1 at 1, which takes some `seconds`, and the change a second, [K, 1] for `u` [K]."""
    u = np.minimum(np.maximum(u, 0.0), 1.0)[:, None]
    return u * u * (3 - 2 * u), 6 * u * (1 - u) / seconds
