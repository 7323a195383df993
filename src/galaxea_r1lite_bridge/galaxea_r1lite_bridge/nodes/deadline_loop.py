"""A thread that calls a function at absolute deadlines of the steady clock.

An rclpy timer shares its executor with every subscription and falls behind where their callbacks take time (measured:
docs/results/control-loop.md). A thread that sleeps until the next absolute deadline does not drift and keeps its rate.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NS = 1_000_000_000


@dataclass(frozen=True)
class PeriodStatistics:
    """Measured control periods of the last second."""

    rate: float
    """Hz."""
    p99: float
    """ms."""
    longest: float
    """ms."""


class DeadlineLoop:
    """Calls `tick` at `rate` Hz on its own thread from start() to stop().

    A deadline that has already passed is skipped, never caught up: two commands in a burst would be a jump.
    """

    def __init__(
        self, rate: float, tick: Callable[[], None], on_error: Callable[[BaseException], None], name: str = "control"
    ) -> None:
        self._period_ns = round(_NS / rate)
        self._tick = tick
        self._on_error = on_error
        self._stopping = threading.Event()
        self._ticks: deque[int] = deque(maxlen=max(2, round(rate) + 1))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current tick."""
        self._stopping.set()
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether it ticks."""
        return self._thread.is_alive()

    def statistics(self) -> PeriodStatistics:
        """Statistics over about the last second; zeros before the second tick."""
        periods: NDArray[np.float64] = np.diff(np.array(list(self._ticks), np.float64) / 1e6)
        if len(periods) == 0:
            return PeriodStatistics(0.0, 0.0, 0.0)
        return PeriodStatistics(
            1e3 / float(np.mean(periods)), float(np.percentile(periods, 99)), float(np.max(periods))
        )

    def _run(self) -> None:
        deadline = time.monotonic_ns()
        while not self._stopping.is_set():
            self._ticks.append(time.monotonic_ns())
            try:
                self._tick()
            except Exception as error:  # noqa: BLE001  a dead control thread must never go unnoticed
                self._on_error(error)
                return
            deadline += self._period_ns
            now = time.monotonic_ns()
            if deadline <= now:
                deadline += ((now - deadline) // self._period_ns + 1) * self._period_ns
            time.sleep((deadline - now) / _NS)
