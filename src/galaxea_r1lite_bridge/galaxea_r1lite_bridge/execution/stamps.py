"""What the stamps of a stream say: how much later than usual a message came, and when they cannot be believed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from galaxea_r1lite_bridge.execution.reasons import Reason

_SECOND = 1_000_000_000
_WINDOW_S = 30  # in which the least delay is the usual one
_STEP_NS = _SECOND // 20  # by which a delay may seem to grow faster than time: messages wait for the processor
_CATCH_UP_NS = _SECOND  # the same where the node's clock is simulated, and makes up for a stall
_EARLY_NS = _SECOND // 4  # for which messages may come before their time, where our clock is simulated and has stalled
_RELEARN_NS = _SECOND  # after a step of a clock
_BACKWARDS = 3  # stamps that go back, each within _RELEARN_NS: one may be a clock that was set, more are two publishers


class LeastDelay(deque[tuple[int, int]]):
    """The least delay of the last 30 s: each entry is a second, and the least in it."""

    def learn(self, delay_ns: int, second: int) -> int:
        """The least delay now, this one included, ns."""
        if self and self[-1][0] == second:
            self[-1] = (second, min(delay_ns, self[-1][1]))
        else:
            self.append((second, delay_ns))
        while self[0][0] < second - _WINDOW_S:
            self.popleft()
        return min(least for _, least in self)


class _Seen(NamedTuple):
    delay_ns: int
    least_ns: int
    steady_ns: int


class _Early(NamedTuple):
    """Messages that come before their time: since when, their least delay, and the newest of them."""

    since_ns: int
    least_ns: int
    delay_ns: int
    steady_ns: int


@dataclass
class Stamps:
    """Of one stream. The sender's clock need not agree with ours: a delay counts from the least one of the last 30 s.

    A delay cannot grow faster than time passes. Where it seems to, one of the clocks was set: the usual delay is
    learned again, and until then the stream is refused. Stamps that go back and forth come from two publishers.
    Messages that come earlier than any before say nothing about the usual delay unless that lasts; until then they may
    be late among themselves.

    Attributes:
        simulated: whether the node's clock is: such a one catches up after a stall, and messages seem early in it.
    """

    simulated: bool = False
    _least: LeastDelay = field(default_factory=LeastDelay)
    _before: _Seen | None = None
    _stamp_ns: int | None = None
    _early: _Early | None = None
    _stepped_ns: int | None = None
    _backwards: int = 0
    _back_ns: int = 0

    def lateness(self, stamp_ns: int, now_ns: int, steady_ns: int) -> float:
        """How much later than usual the message with this stamp came, s.

        Args:
            stamp_ns: the message's, not zero.
            now_ns: time of arrival on the node's clock.
            steady_ns: and on the steady clock.
        """
        delay = now_ns - stamp_ns
        if self._stamp_ns is not None and stamp_ns < self._stamp_ns:
            self._backwards = self._backwards + 1 if steady_ns - self._back_ns < _RELEARN_NS else 1
            self._back_ns = steady_ns
        self._stamp_ns = stamp_ns
        if self._before is not None:
            if delay < self._before.least_ns - _STEP_NS or self._late_among_early(delay, steady_ns):
                since_ns, earliest = (self._early.since_ns, self._early.least_ns) if self._early else (steady_ns, delay)
                earliest = delay if self.simulated else min(delay, earliest)
                self._early = _Early(since_ns, earliest, delay, steady_ns)
                if steady_ns - since_ns < _EARLY_NS:
                    return (delay - earliest) / _SECOND
                self._least.learn(earliest, steady_ns // _SECOND)
            self._early = None
            growth, passed = delay - self._before.delay_ns, steady_ns - self._before.steady_ns
            if growth > passed + (_CATCH_UP_NS if self.simulated else _STEP_NS):
                self._stepped_ns = steady_ns
                self._least.clear()
        least = self._least.learn(delay, steady_ns // _SECOND)
        self._before = _Seen(delay, least, steady_ns)
        return (delay - least) / _SECOND

    def _late_among_early(self, delay: int, steady_ns: int) -> bool:
        """Whether a message that is in time by the clocks as they were can be a late one of those that came early."""
        early = self._early
        return (
            early is not None
            and not self.simulated
            and delay - early.delay_ns <= steady_ns - early.steady_ns + _STEP_NS
        )

    @property
    def offset(self) -> float:
        """The usual delay, s; 0 before the first stamp."""
        return 0.0 if self._before is None else self._before.least_ns / _SECOND

    def refusal(self, steady_ns: int) -> Reason:
        """Why the stream must not be used now, however fresh it is; NONE: it may."""
        if self._backwards >= _BACKWARDS and steady_ns - self._back_ns < _RELEARN_NS:
            return Reason.FEEDBACK_INTERLEAVED
        if self._stepped_ns is not None and steady_ns - self._stepped_ns < _RELEARN_NS:
            return Reason.FEEDBACK_CLOCK_STEPPED
        return Reason.NONE
