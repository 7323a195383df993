import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.reasons import Reason, State

from .rig import check_limits, shown


def test_tracking_reaches_the_target_then_holds_when_the_plan_ends(armed):
    armed.accept(0.4, rows=16)
    command = armed.run(0.95)
    assert shown(command) == (State.TRACKING, Reason.NONE)
    np.testing.assert_allclose(command.motion.position[:6], armed.home[:6] + 0.4, atol=2e-3)
    command = armed.run(0.5)
    assert shown(command) == (State.HOLDING, Reason.STARVED)
    check_limits(armed.sent, armed.controller.limiter)


def test_when_the_chunks_end_in_motion_it_decelerates_and_holds(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.6)
    assert armed.sent[-1].motion.velocity[0] > 0.4
    armed.age["left_arm"] = 1.0
    begin = len(armed.sent)
    armed.run(0.6)
    states = [command.state for command in armed.sent[begin:]]
    assert states[0] == State.STOPPING
    assert states[-1] == State.HOLDING
    assert states == sorted(states, reverse=True), "once at rest it stays"
    check_limits(armed.sent, armed.controller.limiter)


def test_a_fast_plan_is_slowed_down_as_a_whole_and_keeps_its_path(armed):
    """Joint 1 is asked to move at twice its limit, joint 6 slowly: their ratio must stay."""
    offset = np.zeros(14)
    offset[0], offset[5] = 1.2, 0.3
    rows = 7  # 0.4 s: 3 rad/s
    armed.accept(offset, rows=rows, ramp=True)
    begin = len(armed.sent)
    armed.run(1.5)
    path = np.array([c.motion.position[[0, 5]] - armed.home[[0, 5]] for c in armed.sent[begin:]])
    np.testing.assert_allclose(path[-1], [1.2, 0.3], atol=5e-3)
    assert np.abs(path[:, 1] - 0.25 * path[:, 0]).max() < 0.03, "on the line from start to goal"
    assert max(c.lag for c in armed.sent[begin:]) > 0.3
    assert armed.controller.interventions[Reason.LIMIT_VELOCITY] >= 1
    check_limits(armed.sent, armed.controller.limiter)


def test_a_target_outside_of_a_joint_limit_does_not_stop_the_others(armed):
    offset = np.zeros(14)
    offset[5], offset[3] = -9.0, 0.3
    armed.accept(offset)
    command = armed.run(1.4)
    assert command.motion.position[3] == pytest.approx(armed.home[3] + 0.3, abs=5e-3)
    assert command.motion.position[5] == pytest.approx(armed.controller.limiter.lower[5], abs=1e-3)
    assert command.limited[5] == Reason.LIMIT_POSITION


def test_the_command_stays_near_a_blocked_arm(armed):
    armed.plant.lag = 1e9
    armed.accept(0.0)
    armed.accept(np.eye(14)[0] * 1.2, chunk_id=2)
    armed.run(1.0)
    reached = max(abs(c.motion.position[0] - armed.home[0]) for c in armed.sent if c.motion)
    assert reached <= armed.controller.limiter.step[0] + 0.05
    assert shown(armed.sent[-1]) == (State.FAULT, Reason.TRACKING_ERROR)


def test_seam_is_the_jump_of_the_arms_not_of_the_grippers(armed):
    armed.accept(0.0)
    armed.run(0.3)
    offset = np.zeros(14)
    offset[0], offset[6] = 0.3, -40
    armed.accept(offset, chunk_id=2)
    assert armed.controller.seam == pytest.approx(0.3, abs=1e-3)


def test_every_limit_on_the_way_is_counted_once(armed):
    armed.accept(np.eye(14)[0] * 0.4)
    armed.run(0.5)
    counted = dict(armed.controller.interventions)
    assert set(counted) == {Reason.LIMIT_ACCELERATION, Reason.LIMIT_VELOCITY}
    assert armed.controller.interventions[Reason.LIMIT_VELOCITY] == 1
    armed.accept(np.eye(14)[0] * 0.4, chunk_id=2)
    armed.run(0.5)
    assert armed.controller.interventions == counted, "a plan within the limits"
