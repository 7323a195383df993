"""What is done where arms hover: runtime/hovering.py."""

import numpy as np

from fastwam_policy.policies.base import Frame
from fastwam_policy.runtime.hovering import Replanning, Stillness
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
JOINTS = dict.fromkeys(ROBOT.joint_names, 0.0)
MS = 1_000_000


def seen(stillness, positions, joint="left_arm_joint2", step=100 * MS):
    return [stillness.see(k * step, JOINTS | {joint: value}) for k, value in enumerate(positions)]


def test_arms_that_creep_hover_after_a_second_and_arms_that_move_do_not():
    assert seen(Stillness(ROBOT), np.linspace(0, 0.19, 11)) == [False] * 10 + [True]
    assert not any(seen(Stillness(ROBOT), np.linspace(0, 1.0, 31)))
    assert not any(seen(Stillness(ROBOT), np.linspace(0, 40.0, 31), "right_gripper")), "a gripper opens, in mm"


def test_what_moved_before_the_last_second_is_forgotten():
    assert seen(Stillness(ROBOT), [0.0, 1.0, *[2.0] * 10, 2.0]) == [False] * 12 + [True]


def test_pictures_that_come_rarely_are_enough():
    assert seen(Stillness(ROBOT), [0.0, 0.0, 0.0, 0.0], step=700 * MS) == [False, False, True, True]


def test_a_clock_that_went_back_begins_anew():
    stillness = Stillness(ROBOT)
    assert stillness.see(0, JOINTS) is False
    assert stillness.see(1000 * MS, JOINTS) is True
    assert stillness.see(500 * MS, JOINTS) is False


def test_after_a_long_gap_nobody_knows_what_moved():
    stillness = Stillness(ROBOT)
    assert [stillness.see(second * 1000 * MS, JOINTS) for second in (0, 10, 11)] == [False, False, True]


def test_joints_that_are_not_known_say_nothing():
    stillness = Stillness(ROBOT)
    assert not any(stillness.see(k * 1000 * MS, {}) for k in range(4))
    assert [stillness.see(k * 1000 * MS, {"left_arm_joint2": 0.0}) for k in range(10, 13)] == [False, True, True]


def test_where_they_hover_the_next_inference_begins_later_once():
    replanning = Replanning(ROBOT, 0.5, 1.2)
    intervals = [replanning.after(Frame(k * 500 * MS, {}, JOINTS), followed=True) // MS for k in range(7)]
    assert intervals == [500, 500, 1200, 500, 500, 1200, 500]
    replanning.reset()
    assert not replanning.hovers
    never = Replanning(ROBOT, 0.5)
    assert {never.after(Frame(k * 500 * MS, {}, JOINTS), followed=True) for k in range(7)} == {500 * MS}
    assert not never.hovers


def test_arms_that_follow_nothing_do_not_hover():
    """Disarmed, held or moved by a person; the second begins when a chunk is followed."""
    replanning = Replanning(ROBOT, 0.5, 1.2)
    frames = [Frame(k * 500 * MS, {}, JOINTS) for k in range(8)]
    intervals = [replanning.after(frame, followed=k >= 4) // MS for k, frame in enumerate(frames)]
    assert intervals == [500] * 6 + [1200, 500]
