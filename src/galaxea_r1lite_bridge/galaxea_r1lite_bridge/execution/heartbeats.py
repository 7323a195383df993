"""Who answers for the arms, by the heartbeats that are heard."""

from __future__ import annotations

from dataclasses import dataclass

_SECOND = 1_000_000_000
_SENDERS = 64  # that are told apart


@dataclass(frozen=True)
class _Beat:
    """The last heartbeat of a sender."""

    heard_ns: int
    pressed: bool
    deadman: bool

    def released(self, steady_ns: int, silence_ns: int) -> bool:
        return not self.pressed or (self.deadman and steady_ns - self.heard_ns > silence_ns)


class Heartbeats:
    """Every sender that is heard while the arms are armed must go on until they are not: none stands in for another.

    Args:
        limit: s after which a sender that is not needed is forgotten.
        deadman: s of silence after which a deadman switch counts as released.
    """

    def __init__(self, limit: float, deadman: float) -> None:
        self._limit_ns, self._silence_ns = round(limit * _SECOND), round(deadman * _SECOND)
        self._last: dict[int, _Beat] = {}

    def hear(self, session: int, steady_ns: int, *, pressed: bool, deadman: bool) -> None:
        """A heartbeat of one sender, who is told by its session; `deadman` where a switch of a person's feeds it."""
        if session in self._last or len(self._last) < _SENDERS:
            self._last[session] = _Beat(steady_ns, pressed, deadman)

    def now(self, steady_ns: int, *, armed: bool) -> tuple[float, bool]:
        """Age, s, of the one that is missing longest, -1 without any; and whether a switch is released, or silent."""
        if not armed:
            self._last = {s: beat for s, beat in self._last.items() if steady_ns - beat.heard_ns <= self._limit_ns}
        if not self._last:
            return -1.0, False
        oldest = min(beat.heard_ns for beat in self._last.values())
        released = any(beat.released(steady_ns, self._silence_ns) for beat in self._last.values())
        return (steady_ns - oldest) / _SECOND, released
