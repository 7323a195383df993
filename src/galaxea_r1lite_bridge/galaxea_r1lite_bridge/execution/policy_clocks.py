"""How far the clocks of policies' machines are from this one, by round trips of statuses."""

from __future__ import annotations

from dataclasses import dataclass, field

_SECOND = 1_000_000_000
MAX_OFFSET = 0.05  # s
_WINDOW_NS = 10 * _SECOND  # in which the shortest round trip counts; two clocks drift by 1 ms at most meanwhile
_BIN_NS = _SECOND // 4  # of which only the shortest one is kept: a flood must not cost more than a few
_SESSIONS = 16  # that are known at once, those that answered last


def differ(offset: float, round_trip: float) -> bool:
    """Whether clocks differ too much, however unequal the two ways of the round trip were; both in s."""
    return abs(offset) - round_trip / 2 > MAX_OFFSET


@dataclass(frozen=True)
class RoundTrip:
    """The four time stamps of an exchange, ns (RFC 5905, section 8)."""

    sent_ns: int
    """Our clock."""
    received_ns: int
    """Their clock."""
    answered_ns: int
    """Their clock."""
    returned_ns: int
    """Our clock."""

    @property
    def seconds(self) -> float:
        """Time on the way, there and back."""
        return (self.returned_ns - self.sent_ns - (self.answered_ns - self.received_ns)) / _SECOND

    @property
    def offset(self) -> float:
        """How far their clock is ahead of ours, s, known to half of the round trip."""
        return (self.received_ns - self.sent_ns + self.answered_ns - self.returned_ns) / 2 / _SECOND

    def contradicts(self, other: RoundTrip) -> bool:
        """Whether no offset explains both: a clock was set in between."""
        return abs(self.offset - other.offset) > (self.seconds + other.seconds) / 2


@dataclass
class PolicyClock:
    """Clock of one policy session's machine.

    Attributes:
        machine: its name.
        trips: of the last 10 s, each with the steady time of its end, ns; never empty.
    """

    machine: str
    trips: list[tuple[int, RoundTrip]]

    @property
    def shortest(self) -> RoundTrip:
        """The round trip that says most about the offset."""
        return min((trip for _, trip in self.trips), key=lambda trip: trip.seconds)

    @property
    def differs(self) -> bool:
        """Whether nothing that was observed by this clock may move the arms."""
        return differ(self.shortest.offset, self.shortest.seconds)

    @property
    def text(self) -> str:
        """The offset, for people."""
        offset = self.shortest.offset
        way = "ahead of" if offset > 0 else "behind"
        return f"the clock of {self.machine}, policy_node, is {abs(offset):.3f} s {way} that of bridge_node's machine"


@dataclass
class PolicyClocks:
    """Those of all policy sessions that answer."""

    _by_session: dict[int, PolicyClock] = field(default_factory=dict)

    def hear(self, session: int, machine: str, trip: RoundTrip, steady_ns: int) -> None:
        """A policy's answer has come. One that answers nobody, or another bridge, says nothing."""
        if trip.sent_ns <= 0 or trip.seconds < 0:
            return
        known = self._by_session.pop(session, None)  # and last again in their order
        kept = [(at, old) for at, old in known.trips if not trip.contradicts(old)] if known else []
        if kept and steady_ns - kept[-1][0] < _BIN_NS:
            at, old = kept.pop()
            kept.append((at, min(old, trip, key=lambda each: each.seconds)))
        else:
            kept.append((steady_ns, trip))
        self._by_session[session] = PolicyClock(machine, kept)
        if len(self._by_session) > _SESSIONS:
            del self._by_session[next(iter(self._by_session))]

    def forget(self, steady_ns: int) -> None:
        """Time has passed: what is older than 10 s does not count."""
        for session, clock in list(self._by_session.items()):
            clock.trips = [(at, trip) for at, trip in clock.trips if steady_ns - at <= _WINDOW_NS]
            if not clock.trips:
                del self._by_session[session]

    def differs(self, session: int) -> bool:
        """Whether the clock of this session's machine is known to be too far from ours."""
        clock = self._by_session.get(session)
        return clock is not None and clock.differs

    @property
    def worst(self) -> PolicyClock | None:
        """The clock that differs most; None: no policy answers."""
        return max(self._by_session.values(), key=lambda clock: abs(clock.shortest.offset), default=None)
