import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.watchdogs import Reaction, Watch

from .rig import STEP, TICK, Rig, S, check_limits


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def armed(rig):
    return rig.armed()


def shown(command):
    return command.state, command.reason


def test_starts_disarmed_and_sends_nothing(rig):
    rig.accept(0.1)
    command = rig.tick()
    assert shown(command) == (State.DISARMED, Reason.NOT_ARMED)
    assert command.motion is None


def test_arming_needs_good_feedback_and_says_why(rig):
    assert Rig().executor.arm() == Reason.NONE
    rig.age["left_arm"] = 0.2
    rig.tick()
    assert rig.executor.arm() == Reason.FEEDBACK_STALE
    rig.age.clear()
    rig.invalid.add("right_arm")
    rig.tick()
    assert rig.executor.arm() == Reason.FEEDBACK_INVALID
    rig.invalid.clear()
    rig.run(0.3)
    assert rig.executor.arm() == Reason.NONE


def test_arming_is_refused_while_the_arms_move(rig):
    for _ in range(30):
        rig.joints[0] += 0.005
        rig.tick()
    assert rig.executor.arm() == Reason.NOT_STILL
    rig.run(0.3)
    assert rig.executor.arm() == Reason.NONE


@pytest.mark.parametrize(
    ("joint", "value", "reason"),
    [(1, 0.05, Reason.OUTSIDE_LIMITS), (6, -5.0, Reason.OUTSIDE_LIMITS), (1, 2.9, Reason.OUTSIDE_WORKSPACE)],
)
def test_arming_is_refused_outside_of_limits_and_workspace(joint, value, reason):
    rig = Rig(feedback_jump=Watch(10.0, Reaction.FAULT))
    rig.joints[joint] = value
    rig.run(0.3)
    assert rig.executor.arm() == reason
    assert rig.tick().state == State.DISARMED


def test_armed_it_holds_the_measured_pose_until_a_chunk_comes(rig):
    rig.joints[0] += 0.1
    rig.run(0.3)
    rig.armed()
    command = rig.run(0.2)
    assert shown(command) == (State.HOLDING, Reason.ARMED)
    np.testing.assert_allclose(command.motion.position[:14], rig.joints[:14], atol=1e-3)


def test_tracking_reaches_the_target_then_holds_when_the_plan_ends(armed):
    armed.accept(0.4, rows=16)
    command = armed.run(0.95)
    assert shown(command) == (State.TRACKING, Reason.NONE)
    np.testing.assert_allclose(command.motion.position[:6], armed.home[:6] + 0.4, atol=2e-3)
    command = armed.run(0.5)
    assert shown(command) == (State.HOLDING, Reason.STARVED)
    check_limits(armed.sent, armed.executor.limiter)


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
    check_limits(armed.sent, armed.executor.limiter)


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
    assert armed.executor.interventions[Reason.LIMIT_VELOCITY] >= 1
    check_limits(armed.sent, armed.executor.limiter)


def test_a_target_outside_of_a_joint_limit_does_not_stop_the_others(armed):
    offset = np.zeros(14)
    offset[0], offset[3] = -9.0, 0.3
    armed.accept(offset)
    command = armed.run(1.4)
    assert command.motion.position[3] == pytest.approx(armed.home[3] + 0.3, abs=5e-3)
    assert command.motion.position[0] == pytest.approx(armed.executor.limiter.lower[0], abs=1e-3)
    assert command.limited[0] == Reason.LIMIT_POSITION


def test_the_command_stays_near_a_blocked_arm(armed):
    armed.lag = 1e9
    armed.accept(0.0)
    armed.accept(np.eye(14)[0] * 1.2, chunk_id=2)
    armed.run(1.0)
    reached = max(abs(c.motion.position[0] - armed.home[0]) for c in armed.sent if c.motion)
    assert reached <= armed.executor.limiter.step[0] + 0.05
    assert shown(armed.sent[-1]) == (State.FAULT, Reason.TRACKING_ERROR)


def test_arming_again_while_moving_changes_nothing(armed):
    armed.accept(0.3)
    before = armed.run(0.2).motion
    assert armed.executor.arm() == Reason.NONE
    after = armed.tick().motion
    assert np.abs(after.position - before.position).max() < 0.03


def test_a_stale_plan_is_not_followed(armed):
    armed.accept(0.2, rows=64)
    command = armed.run(1.6)
    assert shown(command) == (State.HOLDING, Reason.PLAN_STALE)


def test_lost_feedback_holds_and_recovers(armed):
    armed.accept(0.2)
    armed.age["torso"] = 0.2
    command = armed.tick()
    assert shown(command) == (State.HOLDING, Reason.FEEDBACK_STALE)
    assert command.detail.startswith("torso")
    armed.age.clear()
    assert armed.tick().state == State.TRACKING


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": ["x"] * 14}, Reason.CHUNK_WRONG_JOINTS),
        ({"positions": np.zeros((32, 13))}, Reason.CHUNK_WRONG_JOINTS),
        ({"positions": np.zeros((0, 14))}, Reason.CHUNK_WRONG_JOINTS),
        ({"step_ns": 0}, Reason.CHUNK_WRONG_JOINTS),
        ({"positions": np.full((32, 14), np.nan)}, Reason.CHUNK_NOT_FINITE),
        ({"positions": np.full((32, 14), np.inf)}, Reason.CHUNK_NOT_FINITE),
        ({"positions": np.tile([[1e308], [-1e308]], (16, 14))}, Reason.CHUNK_NOT_FINITE),
        ({"epoch": 0}, Reason.CHUNK_OLD_EPOCH),
        ({"chunk_id": 5}, Reason.CHUNK_OUT_OF_ORDER),
        ({"stamp_ns": 98 * S}, Reason.CHUNK_TOO_OLD),
        ({"stamp_ns": 102 * S}, Reason.CHUNK_FROM_FUTURE),
    ],
)
def test_bad_chunks_are_dropped_with_a_reason_and_the_running_plan_stays(armed, change, reason):
    armed.accept(0.1, chunk_id=5)
    good = vars(armed.chunk(0.1, chunk_id=9))
    assert armed.executor.accept(Chunk(**(good | change)), armed.now) == reason
    assert armed.executor.drops == {reason: 1}
    assert armed.tick().chunk.chunk_id == 5


def test_joints_are_found_by_name_whatever_their_order(armed):
    chunk = armed.chunk(np.arange(14) * 0.01)
    order = np.random.default_rng(0).permutation(14)
    names = [chunk.names[i] for i in order]
    armed.executor.accept(Chunk(1, 1, chunk.stamp_ns, STEP, names, chunk.positions[:, order]), armed.now)
    command = armed.run(1.0)
    np.testing.assert_allclose(command.motion.position[:14], armed.home[:14] + np.arange(14) * 0.01, atol=2e-3)


def test_a_new_epoch_starts_chunk_ids_again(armed):
    armed.accept(0.1, chunk_id=7, epoch=3)
    assert armed.accept(0.1, chunk_id=1, epoch=4) == Reason.NONE
    assert armed.accept(0.1, chunk_id=8, epoch=3) == Reason.CHUNK_OLD_EPOCH


def test_stop_decelerates_and_ignores_the_epochs_seen_so_far(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True, epoch=3)
    armed.run(0.5)
    armed.executor.stop()
    assert shown(armed.tick()) == (State.STOPPING, Reason.STOP_REQUESTED)
    assert shown(armed.run(0.5)) == (State.HOLDING, Reason.STOP_REQUESTED)
    assert armed.accept(0.1, chunk_id=2, epoch=3) == Reason.CHUNK_OLD_EPOCH
    assert armed.accept(0.1, chunk_id=1, epoch=4) == Reason.NONE
    check_limits(armed.sent, armed.executor.limiter)


def test_disarming_in_motion_decelerates_first(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.5)
    armed.executor.disarm()
    assert armed.tick().state == State.STOPPING
    command = armed.run(0.5)
    assert shown(command) == (State.DISARMED, Reason.NOT_ARMED)
    assert command.motion is None
    check_limits(armed.sent, armed.executor.limiter)


def test_rearming_starts_from_the_measured_pose(armed):
    armed.accept(0.4)
    armed.run(0.3)
    armed.executor.disarm()
    armed.run(0.5)
    armed.joints[:6] -= 0.15  # moved by hand
    armed.run(0.3)
    armed.armed()
    np.testing.assert_allclose(armed.tick().motion.position[:14], armed.joints[:14], atol=1e-3)


def test_a_backward_clock_discards_the_plan(armed):
    armed.accept(0.1)
    armed.run(0.2)
    armed.now -= 5 * S
    assert shown(armed.tick())[1] == Reason.CLOCK_JUMPED_BACK
    assert shown(armed.run(0.3)) == (State.HOLDING, Reason.CLOCK_JUMPED_BACK)
    assert armed.accept(0.1) == Reason.NONE
    assert armed.tick().state == State.TRACKING
    check_limits(armed.sent, armed.executor.limiter)


def test_a_clock_that_jumps_ahead_discards_the_plan(armed):
    armed.accept(0.1)
    armed.run(0.2)
    armed.now += S
    assert shown(armed.tick())[1] == Reason.CLOCK_JUMPED_AHEAD
    assert shown(armed.run(0.3)) == (State.HOLDING, Reason.CLOCK_JUMPED_AHEAD)


def test_the_beginning_of_a_simulated_clock_is_no_jump():
    rig = Rig()
    rig.now = 0
    rig.executor.step(rig.inputs())
    rig.now = 1000 * S
    assert rig.tick().reason == Reason.NOT_ARMED
    assert rig.executor.arm() == Reason.NONE


def test_estop_latches_until_released_and_armed_again(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.5)
    armed.executor.set_estop(True)
    assert shown(armed.tick()) == (State.ESTOP, Reason.ESTOP_PRESSED)
    command = armed.run(0.5)
    assert shown(command) == (State.ESTOP, Reason.ESTOP_PRESSED)
    assert not command.motion.velocity.any()
    assert armed.executor.arm() == Reason.ESTOP_PRESSED
    armed.executor.set_estop(False)
    assert armed.tick().state == State.ESTOP, "released, but latched"
    armed.accept(0.1, chunk_id=2)
    assert armed.run(0.1).state == State.ESTOP
    assert armed.executor.arm() == Reason.NONE
    assert shown(armed.tick()) == (State.HOLDING, Reason.ARMED)
    check_limits(armed.sent[:-1], armed.executor.limiter)


def test_estop_of_a_disarmed_bridge_latches_too(rig):
    rig.executor.set_estop(True)
    rig.executor.set_estop(False)
    assert rig.tick().state == State.ESTOP
    assert rig.tick().motion is None
    rig.armed()
    assert rig.tick().state == State.HOLDING


def test_a_driver_error_is_a_fault_while_it_lasts(armed):
    armed.executor.set_driver_error("left", "overheated 7")
    command = armed.tick()
    assert shown(command) == (State.FAULT, Reason.DRIVER_ERROR)
    assert command.detail == "left: overheated 7"
    assert armed.executor.arm() == Reason.DRIVER_ERROR
    armed.executor.set_driver_error("left", "")
    assert armed.executor.arm() == Reason.NONE


def test_frozen_feedback_is_a_fault(armed):
    armed.accept(0.4, ramp=True, rows=20)
    armed.run(0.3)
    armed.frozen = True
    armed.run(0.7)
    assert shown(armed.sent[-1])[0] == State.FAULT
    assert armed.sent[-1].reason in (Reason.FEEDBACK_FROZEN, Reason.TRACKING_ERROR)
    check_limits(armed.sent, armed.executor.limiter)


def test_frozen_feedback_cannot_be_armed_again_until_it_changes():
    armed = Rig(tracking_error=Watch(9.0, Reaction.FAULT)).armed()
    armed.accept(0.4, ramp=True, rows=20)
    armed.run(0.3)
    armed.frozen = True
    armed.run(0.7)
    assert armed.sent[-1].reason == Reason.FEEDBACK_FROZEN
    armed.executor.disarm()
    assert armed.run(0.5).motion is None
    assert armed.executor.arm() == Reason.FEEDBACK_FROZEN
    armed.frozen = False
    armed.run(0.3)
    assert armed.executor.arm() == Reason.NONE
    np.testing.assert_allclose(armed.tick().motion.position[:14], armed.joints[:14], atol=1e-3)


def test_blocked_arms_are_a_fault_and_are_not_pushed_on(armed):
    armed.accept(1.0, ramp=True, rows=20)
    armed.run(0.3)
    armed.lag = 1e9  # something holds them
    blocked_at = armed.joints.copy()
    armed.run(2.0)
    assert shown(armed.sent[-1]) == (State.FAULT, Reason.TRACKING_ERROR)
    np.testing.assert_allclose(armed.sent[-1].motion.position[:14], blocked_at[:14], atol=1e-3)
    armed.lag = 0.05  # they come free
    armed.run(0.5)
    np.testing.assert_allclose(armed.joints[:14], blocked_at[:14], atol=1e-3)
    assert armed.executor.arm() == Reason.NONE
    check_limits(armed.sent, armed.executor.limiter)


def test_feedback_that_stands_still_while_the_arm_holds_is_none(armed):
    armed.frozen = True
    assert shown(armed.run(2.0)) == (State.HOLDING, Reason.ARMED)


def test_a_jump_of_the_feedback_is_a_fault(armed):
    armed.accept(0.1)
    armed.run(0.2)
    armed.joints[2] -= 0.5
    command = armed.tick()
    assert shown(command) == (State.FAULT, Reason.FEEDBACK_JUMPED)
    assert command.detail.startswith("left_arm")


def test_a_late_control_loop_slows_the_plan():
    armed = Rig(chunk_age=Watch(5.0, Reaction.HOLD)).armed()
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.4)
    normal = armed.sent[-1].motion.velocity[0]
    command = armed.tick(8 * TICK)
    assert command.reason == Reason.CONTROL_OVERRUN
    armed.run(0.3)
    assert armed.sent[-1].motion.velocity[0] == pytest.approx(normal / 2, rel=0.1)
    assert armed.run(0.9).reason == Reason.NONE


def test_heartbeat_is_needed_when_it_is_required():
    rig = Rig(heartbeat=Watch(0.5, Reaction.FAULT))
    assert rig.executor.arm() == Reason.HEARTBEAT_LOST
    rig.heartbeat_age = 0.1
    rig.tick()
    rig.armed()
    assert rig.tick().state == State.HOLDING
    rig.heartbeat_age = 0.6
    assert shown(rig.tick()) == (State.FAULT, Reason.HEARTBEAT_LOST)
    rig.heartbeat_age = 0.1
    rig.tick()
    assert rig.tick().state == State.FAULT, "latched"


@pytest.mark.parametrize("reaction", [Reaction.HOLD, Reaction.FAULT])
def test_the_reaction_of_a_watchdog_is_configured(reaction):
    rig = Rig(feedback_age=Watch(0.1, reaction)).armed()
    rig.age["left_arm"] = 0.3
    assert rig.tick().state == (State.FAULT if reaction == Reaction.FAULT else State.HOLDING)
    rig.age.clear()
    rig.tick()
    assert (rig.tick().state == State.HOLDING) == (reaction == Reaction.HOLD)


def test_home_is_slow_and_ignores_chunks(armed):
    armed.accept(0.4, rows=10)
    armed.run(1.2)
    assert armed.executor.home(armed.now) == Reason.NONE
    begin = len(armed.sent)
    assert shown(armed.tick()) == (State.TRACKING, Reason.HOMING)
    assert armed.accept(0.1, chunk_id=2, epoch=9) == Reason.CHUNK_WHILE_HOMING
    command = armed.run(6)
    assert shown(command) == (State.HOLDING, Reason.AT_HOME)
    np.testing.assert_allclose(command.motion.position[:14], armed.home[:14], atol=1e-3)
    fastest = max(np.abs(c.motion.velocity[armed.executor.arms]).max() for c in armed.sent[begin:])
    assert 0.2 < fastest <= 0.3 + 1e-6
    assert not any(c.all_groups for c in armed.sent if c.motion)
    assert armed.accept(0.1, chunk_id=2, epoch=1) == Reason.CHUNK_OLD_EPOCH
    check_limits(armed.sent, armed.executor.limiter)


def test_home_stays_slow_after_a_hold_on_the_way(armed):
    armed.accept(0.4, rows=10)
    armed.run(1.2)
    armed.executor.home(armed.now)
    armed.run(0.6)
    begin = len(armed.sent)
    armed.age["torso"] = 1.0
    assert shown(armed.run(1.0)) == (State.HOLDING, Reason.FEEDBACK_STALE)
    armed.age.clear()
    assert shown(armed.run(5.0)) == (State.HOLDING, Reason.AT_HOME)
    fastest = max(np.abs(c.motion.velocity[armed.executor.arms]).max() for c in armed.sent[begin:])
    assert fastest <= 0.35
    check_limits(armed.sent, armed.executor.limiter)


def test_the_torso_moves_only_when_asked():
    rig = Rig(feedback_jump=Watch(10.0, Reaction.FAULT))
    rig.joints[14:] -= [0.2, 0.0, -0.1]
    rig.run(0.3)
    rig.armed()
    rig.executor.home(rig.now)
    rig.run(1.0)
    np.testing.assert_allclose(rig.joints[14:] - rig.home[14:], [-0.2, 0.0, 0.1], atol=2e-3)
    assert rig.executor.home(rig.now, torso=True) == Reason.NONE
    arms = rig.sent[-1].motion.position[:14].copy()
    assert rig.tick().all_groups
    command = rig.run(8)
    assert command.reason == Reason.AT_HOME
    np.testing.assert_allclose(rig.joints[14:], rig.home[14:], atol=2e-3)
    np.testing.assert_allclose(command.motion.position[:14], arms, atol=1e-9)
    check_limits([c for c in rig.sent if c.all_groups], rig.executor.limiter, joints=17)


def test_a_stop_on_the_way_decelerates_the_torso_too():
    rig = Rig(feedback_jump=Watch(10.0, Reaction.FAULT))
    rig.joints[14] -= 0.3
    rig.run(0.3)
    rig.armed()
    rig.executor.home(rig.now, torso=True)
    rig.run(1.5)
    rig.executor.stop()
    rig.run(1.0)
    moving = [command for command in rig.sent if command.all_groups]
    assert moving[-1].state == State.STOPPING or not moving[-1].motion.velocity[14:].any()
    assert np.abs(moving[-1].motion.velocity[14:]).max() < 0.01
    check_limits(moving, rig.executor.limiter, joints=17)


@pytest.mark.parametrize("prepare", ["disarmed", "estop", "moving"])
def test_home_is_refused_when_it_is_not_safe(rig, prepare):
    expected = {"disarmed": Reason.NOT_ARMED, "estop": Reason.ESTOP_PRESSED, "moving": Reason.NOT_STILL}[prepare]
    if prepare != "disarmed":
        rig.armed()
        rig.accept(0.4)
        rig.run(0.2)
    if prepare == "estop":
        rig.executor.set_estop(True)
    assert rig.executor.home(rig.now) == expected


def test_seam_is_the_jump_of_the_arms_not_of_the_grippers(armed):
    armed.accept(0.0)
    armed.run(0.3)
    offset = np.zeros(14)
    offset[0], offset[6] = 0.3, -40
    armed.accept(offset, chunk_id=2)
    assert armed.executor.seam == pytest.approx(0.3, abs=1e-3)


def test_every_limit_on_the_way_is_counted_once(armed):
    armed.accept(np.eye(14)[0] * 0.4)
    armed.run(0.5)
    counted = dict(armed.executor.interventions)
    assert set(counted) == {Reason.LIMIT_ACCELERATION, Reason.LIMIT_VELOCITY}
    assert armed.executor.interventions[Reason.LIMIT_VELOCITY] == 1
    armed.accept(np.eye(14)[0] * 0.4, chunk_id=2)
    armed.run(0.5)
    assert armed.executor.interventions == counted, "a plan within the limits"
