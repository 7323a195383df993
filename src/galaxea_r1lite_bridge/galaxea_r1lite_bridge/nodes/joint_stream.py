"""The newest message of one joint topic and how its stream is doing."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from fastwam_msgs.msg import StreamStatus
from galaxea_r1lite_bridge.execution.arrivals import Arrivals
from galaxea_r1lite_bridge.execution.types import JointFeedback


class JointStream:
    """Aged by arrival on the steady clock: a sensor's stamp may be wrong."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._received = self._rejected = 0
        self._newest = JointFeedback()
        self._arrival = 0.0
        self._arrivals = Arrivals()

    def store(self, positions: NDArray[np.float64] | None) -> None:
        """Keep a message's positions [count]; None: the message was unusable."""
        now = time.monotonic()
        self._received += 1
        self._arrivals.add(now)
        if positions is None:
            self._rejected += 1
            self._newest.invalid = True
        else:
            self._newest = JointFeedback(positions)
            self._arrival = now

    def feedback(self) -> JointFeedback:
        """Newest good positions with their age."""
        age = -1.0 if self._newest.positions is None else time.monotonic() - self._arrival
        return JointFeedback(self._newest.positions, age, self._newest.invalid)

    def status(self, name: str) -> StreamStatus:
        """For BridgeStatus."""
        now = time.monotonic()
        return StreamStatus(
            name=name,
            received=self._received,
            rejected=self._rejected,
            age=self.feedback().age,
            rate=self._arrivals.rate(now),
            jitter=self._arrivals.jitter(now),
        )
