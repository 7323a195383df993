"""Puts the stamps of a stream on this node's clock, and drops those that cannot be true."""

from __future__ import annotations

from dataclasses import dataclass

from galaxea_r1lite_bridge.execution.stamps import LeastDelay

_SECOND = 1_000_000_000
_FIRST_NS = _SECOND  # by which a stream's first message may be late: what is later comes from another clock
_AHEAD_NS = _SECOND // 4  # by which a stamp may lie ahead: messages wait for the processor, and clocks agree to less
_JITTER_NS = _SECOND // 20  # by which a delay may seem to grow faster than time passes
_CATCH_UP_NS = _SECOND  # instead of both where our clock is simulated: it stalls
_FOLLOWED_NS = _SECOND * 9 // 10  # for which stamps must agree with each other that disagree with our clock


@dataclass(frozen=True)
class _Seen:
    """A message: its stamp, its delay on the node's clock, and its arrival on the steady clock, ns."""

    stamp_ns: int
    delay_ns: int
    steady_ns: int

    @property
    def now_ns(self) -> int:
        return self.stamp_ns + self.delay_ns


@dataclass
class _Step:
    """Messages in a row that agree with each other, and not with the clock so far."""

    first: _Seen
    newest: _Seen
    least_ns: int


class StreamClock:
    """Of one stream. One stamp that cannot be true drops its message; where that goes on, a clock was set.

    A delay cannot grow faster than time passes, and hardly be less than nothing: a stamp that says so is dropped. When
    others follow that agree with it for 0.9 s, they are believed, and what their clock is off by is added to them: the
    least delay among them then counts as none. As long as the clocks agree, stamps stay as they are.

    Attributes:
        offset_ns: what is added to stamps.
        least_delay_ns: least difference of arrival and stamp in the last 30 s: what the clocks differ by, and the way.
    """

    def __init__(self, *, simulated: bool = False) -> None:
        """`simulated` says whether the node's clock is."""
        self._simulated = simulated
        self._ahead_ns, self._jitter_ns = (_CATCH_UP_NS, _CATCH_UP_NS) if simulated else (_AHEAD_NS, _JITTER_NS)
        self._may_lead_ns = self._ahead_ns
        self._now_ns = self._moved_ns = 0
        self._forget()

    def _forget(self) -> None:
        self.offset_ns = self.least_delay_ns = 0
        self._least = LeastDelay()
        self._last: tuple[_Seen, ...] = ()  # the two newest messages that were believed: one of them may be odd
        self._step: _Step | None = None

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest message that was believed, as its sender wrote it; 0: none."""
        return self._last[-1].stamp_ns if self._last else 0

    def place(self, stamp_ns: int, now_ns: int, steady_ns: int) -> int | None:
        """A message's stamp on the node's clock, ns; None: it must be dropped.

        Args:
            stamp_ns: its stamp, not zero.
            now_ns: time of arrival on the node's clock; 0: that has not begun.
            steady_ns: and on the steady clock.
        """
        if now_ns < self._now_ns:
            self._forget()
        if now_ns != self._now_ns:
            self._now_ns, self._moved_ns = now_ns, steady_ns
        if now_ns == 0:
            return None
        seen, step = _Seen(stamp_ns, now_ns - stamp_ns, steady_ns), self._step
        # A process that has stalled may hear the simulation's messages before its clock.
        self._may_lead_ns = self._ahead_ns + (steady_ns - self._moved_ns if self._simulated else 0)
        goes_on = step is not None and self._follows(seen, step.newest, step.least_ns)
        if not (self._is_usual(seen) or (not goes_on and self._is_late(seen))):
            if step is None or not goes_on:
                self._step = _Step(seen, seen, seen.delay_ns)
                return None
            step.newest, step.least_ns = seen, min(step.least_ns, seen.delay_ns)
            if steady_ns - step.first.steady_ns < _FOLLOWED_NS:
                return None
            agrees = 0 <= step.least_ns <= self._ahead_ns
            self.offset_ns, self._last, self._least = 0 if agrees else step.least_ns, (), LeastDelay()
        self._step, self._last = None, (*self._last[-1:], seen)
        self.least_delay_ns = self._least.learn(seen.delay_ns, steady_ns // _SECOND)
        if self.offset_ns:
            self.offset_ns = min(self.offset_ns, seen.delay_ns)
        return stamp_ns + self.offset_ns

    def _is_usual(self, seen: _Seen) -> bool:
        """Whether it is no later than those before it."""
        return bool(self._last) and (
            seen.stamp_ns > self._last[-1].stamp_ns
            and -self._may_lead_ns <= seen.delay_ns - self.offset_ns
            and seen.delay_ns <= max(one.delay_ns for one in self._last) + self._jitter_ns
        )

    def _is_late(self, seen: _Seen) -> bool:
        """Whether it may be late: time enough has passed."""
        if self._last:
            return self._follows(seen, self._last[-1], self.offset_ns - self._may_lead_ns + self._jitter_ns)
        return -self._may_lead_ns <= seen.delay_ns <= _FIRST_NS

    def _follows(self, seen: _Seen, before: _Seen, least_ns: int) -> bool:
        passed = max(0, seen.steady_ns - before.steady_ns)
        if self._simulated:  # it makes up for a stall at once
            passed = max(passed, seen.now_ns - before.now_ns)
        return (
            seen.stamp_ns > before.stamp_ns
            and seen.delay_ns >= least_ns - self._jitter_ns
            and seen.delay_ns - before.delay_ns <= passed + self._jitter_ns
        )
