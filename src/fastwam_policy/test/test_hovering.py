"""What is done where arms hover and grippers waver: runtime/hovering.py and gripper_hysteresis.py."""

import numpy as np

from fastwam_policy.policies.base import ActionChunk, Frame
from fastwam_policy.runtime.gripper_hysteresis import GripperHysteresis
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


def test_joints_that_are_not_known_say_nothing():
    stillness = Stillness(ROBOT)
    assert not any(stillness.see(k * 1000 * MS, {}) for k in range(4))
    assert [stillness.see(k * 1000 * MS, {"left_arm_joint2": 0.0}) for k in range(10, 13)] == [False, True, True]


def test_where_they_hover_the_next_inference_begins_later_once():
    replanning = Replanning(ROBOT, 0.5, 1.2)
    intervals = [replanning.after(Frame(k * 500 * MS, {}, JOINTS)) // MS for k in range(7)]
    assert intervals == [500, 500, 1200, 500, 500, 1200, 500]
    replanning.reset()
    assert not replanning.hovers
    never = Replanning(ROBOT, 0.5)
    assert {never.after(Frame(k * 500 * MS, {}, JOINTS)) for k in range(7)} == {500 * MS}
    assert not never.hovers


def followed(hysteresis, targets, stamp_ns=0, measured=70.0):
    """What is left of a chunk's targets of the left gripper, mm; those of the arms stay."""
    actions = np.tile(np.arange(14.0), (len(targets), 1))
    actions[:, ROBOT.joint_names.index("left_gripper")] = targets
    chunk = ActionChunk(stamp_ns, 100 * MS, ROBOT.joint_names, actions)
    result = hysteresis.applied(chunk, JOINTS | {"left_gripper": measured, "right_gripper": 0.0})
    assert (result.actions[:, ROBOT.is_arm] == actions[:, ROBOT.is_arm]).all()
    assert (chunk.actions == actions).all(), "the policy's own chunk is not touched"
    return result.actions[:, ROBOT.joint_names.index("left_gripper")].tolist()


def test_a_gripper_closes_and_opens_at_two_openings():
    """With a share of 0.6 of 100 mm they are 20 and 80 mm."""
    assert followed(GripperHysteresis(ROBOT, 0.6), [70, 50, 30, 10, 15, 60, 79, 85, 50]) == [
        80, 80, 80, 10, 15, 20, 20, 85, 80,
    ]  # fmt: skip


def test_a_closed_one_stays_closed_from_one_chunk_to_the_next_whatever_it_holds():
    hysteresis = GripperHysteresis(ROBOT, 0.6)
    followed(hysteresis, [10, 10, 10, 10], measured=70)
    assert followed(hysteresis, [60, 60, 60], 200 * MS, measured=90) == [20, 20, 20], "it holds what is 90 mm wide"
    assert followed(hysteresis, [60, 60], 5000 * MS, measured=90) == [80, 80], "that chunk has long ended"
    hysteresis.reset()
    assert followed(hysteresis, [60, 60], 5100 * MS, measured=10) == [20, 20]


def test_without_a_share_nothing_is_changed():
    targets = [70.0, 51.0, 49.0, 3.0]
    assert followed(GripperHysteresis(ROBOT, 0.0), targets) == targets
