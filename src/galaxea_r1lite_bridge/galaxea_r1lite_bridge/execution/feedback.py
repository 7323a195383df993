"""The newest usable message of one joint group, how old it is, and how the stream is doing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.arrivals import Arrivals
from galaxea_r1lite_bridge.execution.stamps import Stamps
from galaxea_r1lite_bridge.execution.types import JointFeedback

_SECOND = 1_000_000_000


class FeedbackStream:
    """Messages of one topic. An unusable one is dropped and counted, and the one before it grows older.

    Not thread-safe.

    `simulated` says whether the node's clock is.

    Attributes:
        count: of the group's joints.
        received: messages.
        rejected: of these, unusable.
        unstamped: of these, without a stamp: they are aged by their arrival alone.
        arrivals: of all messages.
    """

    def __init__(self, count: int, *, simulated: bool = False) -> None:
        self.count = count
        self.received = self.rejected = self.unstamped = 0
        self.arrivals = Arrivals()
        self._stamps = Stamps(simulated)
        self._positions: NDArray[np.float64] | None = None
        self._arrival_ns = 0
        self._lateness = 0.0
        self._unusable = False

    def store(self, positions: NDArray[np.float64] | None, stamp_ns: int, now_ns: int, steady_ns: int) -> None:
        """Take a message.

        Args:
            positions: [count] in rad or mm; None: the message is unusable.
            stamp_ns: its stamp, 0: none.
            now_ns: time of arrival on the node's clock.
            steady_ns: and on the steady clock.
        """
        self.received += 1
        self.arrivals.add(steady_ns / _SECOND)
        self._unusable = positions is None
        if positions is None:
            self.rejected += 1
            return
        self._positions, self._arrival_ns, self._lateness = positions, steady_ns, 0.0
        if stamp_ns == 0:
            self.unstamped += 1
        elif now_ns > 0:  # at 0 a simulated clock has not begun
            self._lateness = self._stamps.lateness(stamp_ns, now_ns, steady_ns)

    @property
    def offset(self) -> float:
        """Least of arrival minus stamp in the last 30 s: how far the sender's clock lies behind ours, s."""
        return self._stamps.offset

    def newest(self, steady_ns: int) -> JointFeedback:
        """The newest usable message, as old as it is now."""
        if self._positions is None:
            return JointFeedback(invalid=self._unusable)
        age = max(self._lateness, (steady_ns - self._arrival_ns) / _SECOND)
        return JointFeedback(self._positions, age, self._unusable, self._stamps.refusal(steady_ns))
