"""What the stamps of a stream say: how much later than usual a message came, and when they cannot be believed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from galaxea_r1lite_bridge.execution.reasons import Reason

_SECOND = 1_000_000_000
_WINDOW_S = 30  # in which the least delay is the usual one
_STEP_NS = _SECOND // 20  # by which a delay may seem to grow faster than time: a simulated clock goes on in steps
_RELEARN_NS = _SECOND  # after a step of a clock
_BACKWARDS = 3  # stamps that go back within _RELEARN_NS: one may be a clock that was set, more are two publishers


class _Seen(NamedTuple):
    stamp_ns: int
    delay_ns: int
    steady_ns: int


@dataclass
class Stamps:
    """Of one stream. The sender's clock need not agree with ours: a delay counts from the least one of the last 30 s.

    A delay cannot grow faster than time passes. Where it seems to, one of the clocks was set: the usual delay is
    learned again, and until then the stream is refused. Stamps that go back and forth come from two publishers.
    """

    _least: deque[tuple[int, int]] = field(default_factory=deque)  # second, least delay in it
    _before: _Seen | None = None
    _stepped_ns: int | None = None
    _backwards: deque[int] = field(default_factory=lambda: deque(maxlen=_BACKWARDS))

    def lateness(self, stamp_ns: int, now_ns: int, steady_ns: int) -> float:
        """How much later than usual the message with this stamp came, s.

        Args:
            stamp_ns: the message's, not zero.
            now_ns: time of arrival on the node's clock.
            steady_ns: and on the steady clock.
        """
        delay, before = now_ns - stamp_ns, self._before
        self._before = _Seen(stamp_ns, delay, steady_ns)
        if before is not None:
            if delay - before.delay_ns > steady_ns - before.steady_ns + _STEP_NS:
                self._stepped_ns = steady_ns
                self._least.clear()
            if stamp_ns < before.stamp_ns:
                self._backwards.append(steady_ns)
        second = steady_ns // _SECOND
        if self._least and self._least[-1][0] == second:
            self._least[-1] = (second, min(delay, self._least[-1][1]))
        else:
            self._least.append((second, delay))
        while self._least[0][0] < second - _WINDOW_S:
            self._least.popleft()
        return (delay - min(least for _, least in self._least)) / _SECOND

    def refusal(self, steady_ns: int) -> Reason:
        """Why the stream must not be used now, however fresh it is; NONE: it may."""
        if len(self._backwards) == _BACKWARDS and steady_ns - self._backwards[0] < _RELEARN_NS:
            return Reason.FEEDBACK_INTERLEAVED
        if self._stepped_ns is not None and steady_ns - self._stepped_ns < _RELEARN_NS:
            return Reason.FEEDBACK_CLOCK_STEPPED
        return Reason.NONE
