"""Grippers that do not follow each small change of mind."""

import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.hysteresis import Hysteresis

from .rig import ROBOT, Rig, check_limits

GRIPPERS = ~ROBOT.is_arm


def asked(*openings, band=10.0, start=50.0):
    """What one gripper goes to; the joint beside it follows."""
    hysteresis, found = Hysteresis(np.array([False, True]), band), []
    previous = np.array([0.0, start])
    for index, opening in enumerate(openings):
        position, velocity = hysteresis.turned(previous, np.array([index, opening]), np.array([1.0, 5.0]))
        assert position[0] == index
        assert velocity[0] == 1.0
        assert velocity[1] == (5.0 if position[1] == opening else 0.0)
        found.append(float(position[1]))
    return found


def test_a_closing_gripper_stays_closed_while_the_policy_is_undecided():
    assert asked(35, 20, 22, 18, 27, 25, 15) == [35, 20, 20, 18, 18, 18, 15]


def test_it_turns_for_more_than_the_band_and_then_stays_open():
    assert asked(20, 31, 40, 35, 31, 29) == [20, 31, 40, 40, 40, 29]


def test_from_rest_it_moves_for_more_than_the_band():
    assert asked(55, 45, 61, 45) == [50, 50, 61, 45]


def test_without_a_band_each_target_is_followed():
    assert asked(35, 36, 35, band=0.0) == [35, 36, 35]


def closing(rig, *strokes):
    """How far a gripper is closed at each tick while a policy asks for these one after the other, mm."""
    begin = len(rig.sent)
    for number, stroke in enumerate(strokes):
        rig.accept(np.where(GRIPPERS, -stroke, 0.0), chunk_id=number + 1)
        rig.run(0.4)
    check_limits(rig.sent, rig.controller.limiter)
    return [float(rig.home[6] - command.motion.position[6]) for command in rig.sent[begin:]]


@pytest.mark.parametrize(("band", "turns"), [(0.0, True), (10.0, False)])
def test_the_bridge_keeps_a_grip_with_it(band, turns):
    rig = Rig({"gripper_hysteresis": band}).armed()
    closed = closing(rig, 40, 33, 40, 33)
    assert max(closed) == pytest.approx(40, abs=0.5)
    assert (min(closed[60:]) < 35) == turns
