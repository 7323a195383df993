"""When a session's bridge was in which state, when chunks came, and when limits and watchdogs acted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastwam_policy.reports.session import Session
from fastwam_policy.reports.summary import ALARMS, reason_text, state_name

_MARKS = 2000  # of a lane, the longest: more than a screen has columns
_TICKS = 5


@dataclass(frozen=True)
class Mark:
    """Something that lasted from `begin` to `end`, in s since the session's start; `kind` gives its colour."""

    begin: float
    end: float
    kind: str
    text: str


@dataclass(frozen=True)
class Lane:
    """Marks of one subject."""

    name: str
    marks: list[Mark]


@dataclass(frozen=True)
class Timeline:
    """What is shown under the film."""

    duration: float
    lanes: list[Lane] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """Kinds of marks, in the order in which they first appear."""
        return list(dict.fromkeys(mark.kind for lane in self.lanes for mark in lane.marks))

    @property
    def ticks(self) -> list[str]:
        """Times along the scale."""
        return [f"{self.duration * tick / (_TICKS - 1):.0f} s" for tick in range(_TICKS)]

    def percent(self, seconds: float) -> str:
        """A time or length as a share of the session."""
        return f"{100 * min(max(seconds / self.duration, 0.0), 1.0):.3f}"


def timeline(session: Session) -> Timeline:
    """Lanes of a session; none where it has no length."""
    if session.duration <= 0:
        return Timeline(0.0)
    status = session.dated(session.bridge_status)
    chunks = [
        Mark(begin, begin, "chunk", f"chunk {chunk.chunk_id}, {chunk.latency_ms[-1]:.0f} ms")
        for chunk in session.chunks
        if 0 <= (begin := float(chunk.times[0])) <= session.duration
    ]
    lanes = [
        Lane("state", list(_states(status, session.duration))),
        Lane("chunks", chunks),
        Lane("interventions", list(_interventions(status))),
    ]
    shown = [Lane(lane.name, _longest(lane.marks)) for lane in lanes if lane.marks]
    return Timeline(session.duration, shown)


def _longest(marks: list[Mark]) -> list[Mark]:
    kept = sorted(marks, key=lambda mark: mark.begin - mark.end)[:_MARKS]
    return sorted(kept, key=lambda mark: mark.begin)


def _states(status: Sequence[tuple[float, Any]], end: float) -> Iterator[Mark]:
    """A mark for each time in a state for a reason."""
    changes = [
        (time, now)
        for (time, now), (_, before) in zip(status, [(0.0, None), *status], strict=False)
        if before is None or (now.state, now.reason) != (before.state, before.reason)
    ]
    for (begin, now), (until, _) in zip(changes, [*changes[1:], (end, None)], strict=False):
        name = state_name(now.state).lower()
        yield Mark(
            begin, max(until, begin), name.split()[0], name + (f": {reason_text(now.reason)}" if now.reason else "")
        )


def _interventions(status: Sequence[tuple[float, Any]]) -> Iterator[Mark]:
    """A mark where a limit or a watchdog began to act."""
    before, counts = None, {}
    for time, now in status:
        for one in now.interventions:
            if before is not None and one.count > counts.get(one.reason, 0):
                yield Mark(time, time, "intervention", f"{one.reason} {one.text}")
            counts[one.reason] = one.count
        if now.reason in ALARMS and (before is None or before.reason != now.reason):
            yield Mark(time, time, "intervention", reason_text(now.reason))
        before = now
