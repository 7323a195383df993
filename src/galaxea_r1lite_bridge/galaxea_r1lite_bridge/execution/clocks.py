"""How much time a control tick may use: real time, and what of it the node's clock confirms."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_SECOND = 1_000_000_000
_WINDOW_NS = _SECOND // 10  # over which the node's clock is averaged: a simulated one goes on in steps
STANDSTILL = 0.5  # s: a simulation on a busy machine stands still for moments
_UNEVEN = 0.1  # share by which the clocks may differ over that time, unreported


@dataclass(frozen=True)
class Elapsed:
    """Time between two control ticks.

    Attributes:
        dt: s of the steady clock, at most the longest period that limits may use: a late tick must not become a jump.
        pace: how fast the node's clock goes, 0..1 of real time.
        ahead_ns: by which the node's clock went on further than a plan may: a plan must wait that long.
        uneven: whether the clocks differ enough to be reported.
    """

    dt: float
    pace: float
    ahead_ns: int
    uneven: bool

    @property
    def plan_ns(self) -> int:
        """By which a plan may go on: never more than real time, nor more than the limits' period."""
        return round(self.dt * self.pace * _SECOND)


@dataclass
class Standstill:
    """Whether the node's clock stands still, as a simulated one does whose publisher has stopped."""

    _now_ns: int = -1
    _since_ns: int = 0

    def seconds(self, now_ns: int, steady_ns: int) -> float:
        """Time on the steady clock since the node's clock was last seen to go on, s."""
        if now_ns != self._now_ns:
            self._now_ns, self._since_ns = now_ns, steady_ns
        return (steady_ns - self._since_ns) / _SECOND


@dataclass
class Clocks:
    """Compares the node's clock, which may be simulated, step or stand still, with the steady clock.

    Attributes:
        max_dt: s, longest period that limits may use.
    """

    max_dt: float
    _ticks: deque[tuple[int, int]] = field(default_factory=deque)

    def tick(self, now_ns: int, steady_ns: int) -> Elapsed:
        """Time since the tick before; none at the first one."""
        ticks = self._ticks
        node_ns, real_ns = (now_ns - ticks[-1][0], steady_ns - ticks[-1][1]) if ticks else (0, 0)
        if node_ns < 0:
            ticks.clear()
        ticks.append((now_ns, steady_ns))
        while len(ticks) > 2 and steady_ns - ticks[1][1] >= _WINDOW_NS:
            ticks.popleft()
        window_ns = steady_ns - ticks[0][1]
        ratio = (now_ns - ticks[0][0]) / window_ns if window_ns > 0 else 0.0
        dt, pace = min(max(real_ns, 0) / _SECOND, self.max_dt), min(ratio, 1.0)
        return Elapsed(dt, pace, node_ns - round(dt * pace * _SECOND), abs(ratio - 1.0) > _UNEVEN)
