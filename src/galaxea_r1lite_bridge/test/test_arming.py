import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.reasons import Reason, State

from .rig import Rig, shown


def test_arming_needs_good_feedback_and_says_why(rig):
    assert Rig().controller.arm() == Reason.NONE
    rig.age["left_arm"] = 0.2
    rig.tick()
    assert rig.controller.arm() == Reason.FEEDBACK_STALE
    rig.age.clear()
    rig.run(0.3)
    rig.invalid.add("right_arm")
    rig.age["right_arm"] = 0.05
    rig.tick()
    assert rig.controller.arm() == Reason.NONE, "the message before is young enough"
    rig.controller.disarm()
    rig.age["right_arm"] = 0.2
    rig.run(0.1)
    assert rig.controller.arm() == Reason.FEEDBACK_INVALID
    assert rig.controller.refused == "right_arm"


def test_arming_is_refused_while_the_arms_move(rig):
    for _ in range(30):
        rig.joints[0] += 0.005
        rig.tick()
    assert rig.controller.arm() == Reason.NOT_STILL
    rig.run(0.3)
    assert rig.controller.arm() == Reason.NONE


@pytest.mark.parametrize(
    ("joint", "value", "reason"),
    [(1, 0.05, Reason.OUTSIDE_LIMITS), (6, -5.0, Reason.OUTSIDE_LIMITS), (1, 2.9, Reason.OUTSIDE_WORKSPACE)],
)
def test_arming_is_refused_outside_of_limits_and_workspace(joint, value, reason):
    rig = Rig({"watchdog.feedback_jump.limit": 3.0})
    rig.joints[joint] = value
    rig.run(0.3)
    assert rig.controller.arm() == reason
    assert rig.tick().state == State.DISARMED


@pytest.mark.parametrize(("joint", "name"), [(5, "left_arm_joint6"), (6, "left_gripper"), (15, "torso_joint2")])
@pytest.mark.parametrize("offset", [2 * np.pi, -2 * np.pi, 1e9, -1e300])
def test_an_encoder_that_is_off_is_refused_at_arming_with_its_name(joint, name, offset):
    rig = Rig({"watchdog.feedback_jump.reaction": "hold"})
    rig.joints[joint] += 30 * offset if name == "left_gripper" else offset
    rig.run(0.3)
    assert rig.controller.arm() == Reason.OUTSIDE_LIMITS
    assert rig.controller.refused.startswith(f"{name} at ")


@pytest.mark.parametrize("torso", [False, True])
@pytest.mark.parametrize("offset", [2 * np.pi, 1e9, -1e300])
def test_homing_is_refused_from_where_the_torso_cannot_be(offset, torso):
    rig = Rig({"watchdog.feedback_jump.reaction": "hold"}).armed()
    rig.joints[15] += offset
    rig.run(0.3)  # the torso's pose is a median
    assert rig.controller.home(rig.clock.now_ns, torso=torso) == Reason.OUTSIDE_LIMITS
    assert rig.controller.refused.startswith("torso_joint2 at ")
    assert rig.run(0.2).state == State.HOLDING


def test_arming_does_not_cut_braking_short(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.5)
    armed.plant.lag = 1e9
    armed.controller.set_estop(True)
    armed.tick()
    armed.controller.set_estop(False)
    while armed.sent[-1].motion.velocity.any():
        assert armed.controller.arm() == Reason.NOT_STILL
        armed.tick()
    armed.run(0.3)
    assert armed.controller.arm() == Reason.NONE


def test_armed_it_holds_the_measured_pose_until_a_chunk_comes(rig):
    rig.joints[0] += 0.1
    rig.run(0.3)
    rig.armed()
    command = rig.run(0.2)
    assert shown(command) == (State.HOLDING, Reason.ARMED)
    np.testing.assert_allclose(command.motion.position[:14], rig.joints[:14], atol=1e-3)


def test_arming_again_while_moving_changes_nothing(armed):
    armed.accept(0.3)
    before = armed.run(0.2).motion
    assert armed.controller.arm() == Reason.NONE
    after = armed.tick().motion
    assert np.abs(after.position - before.position).max() < 0.03


def test_rearming_starts_from_the_measured_pose(armed):
    armed.accept(0.4)
    armed.run(0.3)
    armed.controller.disarm()
    armed.run(0.5)
    armed.joints[:6] -= 0.15  # moved by hand
    armed.run(0.3)
    armed.armed()
    np.testing.assert_allclose(armed.tick().motion.position[:14], armed.joints[:14], atol=1e-3)
