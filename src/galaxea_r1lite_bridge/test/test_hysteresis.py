"""Grippers that do not follow each small change of mind."""

import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.hysteresis import Hysteresis
from galaxea_r1lite_bridge.execution.reasons import Reason, State

from .rig import ROBOT, Rig, check_limits, shown

GRIPPERS = ~ROBOT.is_arm


def asked(*openings, band=10.0):
    """What one gripper of 0 to 100 mm goes to; the joint beside it follows."""
    reach = np.array([-3.0, 0.0]), np.array([3.0, 100.0])
    hysteresis, found = Hysteresis(np.array([False, True]), *reach, band), []
    for number, opening in enumerate(openings):
        held, place = hysteresis.held(np.array([0.0, 50.0]), np.array([(-1.0) ** number, opening]))
        assert not held[0]
        found.append(float(place[1]) if held[1] else opening)
    return found


def test_a_closing_gripper_stays_closed_while_the_policy_is_undecided():
    assert asked(35, 20, 22, 18, 27, 25, 15) == [35, 20, 20, 18, 18, 18, 15]


def test_it_turns_for_more_than_the_band_and_then_stays_open():
    assert asked(35, 20, 30, 31, 40, 35, 31, 29) == [35, 20, 20, 31, 40, 40, 40, 29]


def test_what_is_asked_for_beyond_the_ends_counts_as_the_end():
    assert asked(20, -12, 1, 4, 8, 11) == [20, -12, 0, 0, 0, 11]


def test_the_first_that_is_asked_for_is_followed_and_is_the_direction():
    assert asked(48, 51, 47) == [48, 48, 47]
    assert asked(52, 47, 53) == [52, 52, 53]


def test_without_a_band_each_target_is_followed():
    assert asked(35, 36, 35, band=0.0) == [35, 36, 35]


def closing(rig, *strokes):
    """How far a gripper is closed at each tick while a policy asks for these one after the other, mm."""
    begin = len(rig.sent)
    for stroke in strokes:
        rig.number = getattr(rig, "number", 0) + 1
        rig.accept(np.where(GRIPPERS, -stroke, 0.0), chunk_id=rig.number, rows=8)
        rig.run(0.4)
    check_limits(rig.sent, rig.controller.limiter)
    return [float(rig.home[6] - command.motion.position[6]) for command in rig.sent[begin:]]


@pytest.mark.parametrize(("band", "turns"), [(0.0, True), (10.0, False)])
def test_the_bridge_keeps_a_grip_with_it(band, turns):
    rig = Rig({"gripper_hysteresis": band}).armed()
    closed = closing(rig, 40, 33, 40, 33)
    assert max(closed) == pytest.approx(40, abs=0.5)
    assert (min(closed[60:]) < 35) == turns


def test_a_grip_outlasts_a_pause_of_the_policy():
    rig = Rig({"gripper_hysteresis": 10.0}).armed()
    closing(rig, 40)
    assert shown(rig.run(1.0)) == (State.HOLDING, Reason.STARVED)
    assert closing(rig, 33)[-1] == pytest.approx(40, abs=0.5)
    assert closing(rig, 48)[-1] == pytest.approx(48, abs=0.5), "it goes on"


def test_homing_and_arming_are_not_a_change_of_mind():
    rig = Rig({"gripper_hysteresis": 10.0}).armed()
    closing(rig, 20, 7)  # the second turns
    rig.run(1.0)
    assert rig.controller.home(rig.clock.now_ns) == Reason.NONE
    command = rig.run(2.0)
    assert shown(command) == (State.HOLDING, Reason.AT_HOME)
    assert command.motion.position[6] == pytest.approx(rig.home[6], abs=0.1)
    rig.number += 1
    rig.accept(np.where(GRIPPERS, -4.0, 0.0), chunk_id=rig.number, epoch=2)
    assert rig.home[6] - rig.run(0.5).motion.position[6] == pytest.approx(4, abs=0.5), "followed at once"
    rig.controller.disarm()
    rig.run(0.5)
    rig.armed()
    rig.accept(np.where(GRIPPERS, -2.0, 0.0), chunk_id=rig.number + 1, epoch=2)
    assert rig.home[6] - rig.run(0.5).motion.position[6] == pytest.approx(2, abs=0.5), "armed anew: followed at once"
