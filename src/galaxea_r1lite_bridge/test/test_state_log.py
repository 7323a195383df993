"""Which of the bridge's states get a line of the log."""

from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.state_log import StateLog

LATE = State.TRACKING, Reason.CONTROL_OVERRUN
HELD = State.HOLDING, Reason.PLAN_STALE
FINE = State.TRACKING, Reason.NONE
FAULT = State.FAULT, Reason.HEARTBEAT_LOST


def lines(log, *states, period=0.01, begin=0.0):
    """Those of the states, one each `period` s, that get a line, with its time."""
    return [(what, round(begin + i * period, 2)) for i, what in enumerate(states) if log.due(*what, begin + i * period)]


def test_states_that_take_turns_get_a_line_once_in_a_while():
    found = lines(StateLog(), *[LATE, HELD] * 160, period=1 / 64)
    assert [(what, int(at)) for what, at in found] == [(LATE, 0), (HELD, 0), (LATE, 2), (HELD, 2), (LATE, 4), (HELD, 4)]


def test_one_that_lasts_gets_its_line_late_and_once():
    log = StateLog()
    assert len(lines(log, LATE, HELD, LATE)) == 2
    assert lines(log, *[LATE] * 500, begin=0.03) == [(LATE, 2)]


def test_one_that_comes_again_later_gets_a_line_again():
    log = StateLog()
    assert lines(log, HELD, FINE) == [(HELD, 0)]
    assert lines(log, HELD, FINE, begin=3) == [(HELD, 3)]


def test_a_fault_of_two_reasons_gets_no_line_for_each_change():
    other = State.FAULT, Reason.CONTROL_OVERRUN
    assert lines(StateLog(), *[FAULT, other] * 20) == [(FAULT, 0), (other, 0.01)]


def test_a_fault_gets_a_line_whatever_came_between():
    assert [what for what, _ in lines(StateLog(), HELD, FAULT, HELD, FAULT)] == [HELD, FAULT, FAULT]


def test_faults_get_a_line_at_once():
    log = StateLog()
    assert lines(log, FAULT, FAULT, FINE, FAULT) == [(FAULT, 0), (FAULT, 0.03)]
