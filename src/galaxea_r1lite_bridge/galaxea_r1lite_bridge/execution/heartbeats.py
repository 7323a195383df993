"""Who answers for the arms, by the heartbeats that are heard."""

from __future__ import annotations

_SECOND = 1_000_000_000


class Heartbeats:
    """Every sender that is heard while the arms are armed must go on until they are not: none stands in for another.

    Args:
        limit: s after which a sender that is not needed is forgotten.
    """

    def __init__(self, limit: float) -> None:
        self._limit_ns = round(limit * _SECOND)
        self._last: dict[int, tuple[int, bool]] = {}

    def hear(self, session: int, steady_ns: int, *, pressed: bool) -> None:
        """A heartbeat of one sender, who is told by its session."""
        self._last[session] = steady_ns, pressed

    def now(self, steady_ns: int, *, armed: bool) -> tuple[float, bool]:
        """Age, s, of the one that is missing longest, -1 without any; and whether one says that it is not pressed."""
        if not armed:
            self._last = {session: at for session, at in self._last.items() if steady_ns - at[0] <= self._limit_ns}
        if not self._last:
            return -1.0, False
        oldest = min(heard_ns for heard_ns, _ in self._last.values())
        return (steady_ns - oldest) / _SECOND, not all(pressed for _, pressed in self._last.values())
