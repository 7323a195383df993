"""How regularly messages arrive."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

_WINDOW = 2.0  # s


@dataclass
class Arrivals:
    """Arrival times of one stream over the last 2 s. Not thread-safe."""

    _times: deque[float] = field(default_factory=deque)

    def add(self, now: float) -> None:
        """A message arrived at `now`, s of the steady clock."""
        self._times.append(now)
        self._forget(now)

    def rate(self, now: float) -> float:
        """Hz; 0 when fewer than two messages came."""
        self._forget(now)
        span = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        return (len(self._times) - 1) / span if span > 0 else 0.0

    def jitter(self, now: float) -> float:
        """Standard deviation of the time between two messages, ms."""
        self._forget(now)
        return 1e3 * float(np.diff(np.array(self._times)).std()) if len(self._times) > 2 else 0.0

    def _forget(self, now: float) -> None:
        while self._times and now - self._times[0] > _WINDOW:
            self._times.popleft()
