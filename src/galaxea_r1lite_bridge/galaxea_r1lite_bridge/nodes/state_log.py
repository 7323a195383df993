"""Which of the bridge's states are worth a line of the log."""

from __future__ import annotations

from galaxea_r1lite_bridge.execution.reasons import Reason, State

_PERIOD = 2.0  # s


class StateLog:
    """At a limit two states take turns at the control rate: each gets a line once in a while, or when it lasts.

    A fault and the emergency stop get theirs as they begin.
    """

    def __init__(self) -> None:
        self._state = State.INACTIVE
        self._last: tuple[State, Reason] | None = None  # what the last line said, while it holds
        self._times: dict[tuple[State, Reason], float] = {}

    def due(self, state: State, reason: Reason, now: float) -> bool:
        """Whether to write a line at `now` [s]; asked at each change, and now and then between them."""
        what, grave = (state, reason), state in (State.FAULT, State.ESTOP)
        begins, self._state = grave and state != self._state, state
        if what == self._last and not begins:
            return False
        again = now - self._times.get(what, -_PERIOD) < _PERIOD
        if not begins and (again or reason < Reason.STARVED):
            self._last = None
            return False
        self._last, self._times[what] = what, now
        return True
