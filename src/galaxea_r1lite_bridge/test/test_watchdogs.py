import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.reasons import Reason, State

from .rig import TICK, Rig, S, check_limits, shown

ROLL = np.eye(14)[5] + np.eye(14)[12]  # 1 rad of the wrists, which meets nothing


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


def test_a_backward_clock_discards_the_plan_and_holds_for_a_second(armed):
    armed.accept(0.1)
    armed.run(0.2)
    armed.clock.now_ns -= 5 * S
    assert shown(armed.tick())[1] == Reason.CLOCK_JUMPED_BACK
    assert shown(armed.run(0.3)) == (State.HOLDING, Reason.CLOCK_JUMPED_BACK)
    armed.accept(0.1)
    assert shown(armed.run(0.6)) == (State.HOLDING, Reason.CLOCK_JUMPED_BACK)
    armed.run(0.2)
    assert armed.accept(0.1) == Reason.NONE
    assert armed.tick().state == State.TRACKING
    check_limits(armed.sent, armed.controller.limiter)


def test_a_clock_that_jumps_ahead_discards_the_plan(armed):
    armed.accept(0.1)
    armed.run(0.2)
    armed.clock.now_ns += S
    assert shown(armed.tick())[1] == Reason.CLOCK_JUMPED_AHEAD
    assert shown(armed.run(0.3)) == (State.HOLDING, Reason.CLOCK_JUMPED_AHEAD)


@pytest.mark.parametrize("offset", [0.05, 5.0, 1e6])
def test_a_clock_with_two_publishers_is_refused_within_a_second(armed, offset):
    armed.accept(0.4, ramp=True)
    armed.run(0.2)
    begin = len(armed.sent)
    for tick in range(200):
        armed.clock.now_ns += round((-1) ** tick * offset * S)
        if tick % 10 == 0:
            armed.accept(0.4, chunk_id=2 + tick)
        armed.tick()
    reasons = [command.reason for command in armed.sent[begin:]]
    assert Reason.CLOCK_INTERLEAVED in reasons[:20]
    assert set(reasons[20:]) == {Reason.CLOCK_INTERLEAVED}
    assert not any(command.motion.velocity.any() for command in armed.sent[begin + 50 :])
    armed.controller.disarm()
    armed.tick()
    assert armed.controller.arm() == Reason.CLOCK_INTERLEAVED
    armed.run(1.0)
    assert armed.controller.arm() == Reason.NONE
    check_limits(armed.sent[:begin], armed.controller.limiter)


def test_a_clock_that_goes_back_between_ticks_is_seen(armed):
    armed.accept(0.4, ramp=True)
    armed.run(0.2)
    armed.backwards = 1
    command = armed.tick()
    assert shown(command)[1] == Reason.CLOCK_JUMPED_BACK
    assert command.detail == "between two ticks"
    for _ in range(2):
        armed.backwards += 1
        command = armed.tick()
    assert command.reason == Reason.CLOCK_INTERLEAVED
    assert shown(armed.run(0.9)) == (State.HOLDING, Reason.CLOCK_INTERLEAVED)


def test_the_beginning_of_a_simulated_clock_is_no_jump():
    rig = Rig()
    rig.clock.now_ns = 0
    for _ in range(101):
        rig.clock.steady_ns += TICK
        rig.controller.step(rig.inputs())
    rig.clock.now_ns = 1000 * S
    assert rig.tick().reason == Reason.NOT_ARMED
    assert rig.controller.arm() == Reason.NONE


def test_frozen_feedback_is_a_fault(armed):
    armed.accept(0.4, ramp=True, rows=20)
    armed.run(0.3)
    armed.frozen = True
    armed.run(0.7)
    assert shown(armed.sent[-1])[0] == State.FAULT
    assert armed.sent[-1].reason in (Reason.FEEDBACK_FROZEN, Reason.TRACKING_ERROR)
    check_limits(armed.sent, armed.controller.limiter)


def test_frozen_feedback_cannot_be_armed_again_until_it_changes():
    armed = Rig({"watchdog.tracking_error.limit": 3.0}).armed()
    armed.accept(0.4, ramp=True, rows=20)
    armed.run(0.3)
    armed.frozen = True
    armed.run(0.7)
    assert armed.sent[-1].reason == Reason.FEEDBACK_FROZEN
    armed.controller.disarm()
    assert armed.run(0.5).motion is None
    assert armed.controller.arm() == Reason.FEEDBACK_FROZEN
    armed.frozen = False
    armed.run(0.3)
    assert armed.controller.arm() == Reason.NONE
    np.testing.assert_allclose(armed.tick().motion.position[:14], armed.joints[:14], atol=1e-3)


def test_feedback_that_stands_still_while_the_arm_holds_is_none(armed):
    armed.frozen = True
    assert shown(armed.run(2.0)) == (State.HOLDING, Reason.ARMED)


def test_an_arm_that_has_rested_may_set_off_a_little_late(armed):
    armed.frozen = True  # as it seems where no noise changes the last digit
    armed.run(2.0)
    armed.accept(0.4)
    armed.run(0.15)
    assert np.abs(armed.sent[-1].motion.position[:6] - armed.home[:6]).max() > 0.05
    armed.frozen = False
    assert armed.run(0.5).state == State.TRACKING
    assert Reason.FEEDBACK_FROZEN not in {command.reason for command in armed.sent}


def test_an_arm_that_came_to_rest_unseen_is_not_frozen(armed):
    """As after a step of the clock: for a second the feedback is refused, and meanwhile the arms brake."""
    armed.noise, armed.plant.lag = 0.0, 1e-3
    armed.accept(1.0)
    while np.abs(armed.tick().motion.velocity[:6]).max() < 0.9 * armed.controller.limiter.velocity[:6].max():
        pass
    last_seen = armed.sent[-1].motion.position
    armed.age = dict.fromkeys(armed.controller.joints.groups, 1.0)
    armed.run(1.0)
    assert np.abs(armed.sent[-1].motion.position - last_seen)[:6].max() > 0.05
    armed.age = {}
    assert armed.run(0.5).state in (State.HOLDING, State.TRACKING)
    armed.frozen = True
    assert armed.accept(0.0, chunk_id=2) == Reason.NONE
    assert armed.run(1.0).state == State.FAULT, "what freezes then is found"


def test_a_jump_of_the_feedback_is_a_fault(armed):
    armed.accept(0.1)
    armed.run(0.2)
    armed.joints[2] -= 0.5
    command = armed.tick()
    assert shown(command) == (State.FAULT, Reason.FEEDBACK_JUMPED)
    assert command.detail.startswith("left_arm")


@pytest.mark.parametrize(("joint", "group"), [(2, "left_arm"), (15, "torso")])
@pytest.mark.parametrize("silent", ["left_arm", "right_gripper", "torso"])
@pytest.mark.parametrize("gap", [0.01, 0.12, 0.4])
def test_what_a_driver_says_after_a_silence_is_compared_with_what_it_said_before(armed, joint, group, silent, gap):
    armed.accept(0.1)
    armed.run(0.2)
    armed.age = {silent: 1.0}
    armed.run(gap)
    armed.age = {}
    before = armed.sent[-1].motion.position
    armed.joints[joint] -= 0.5
    command = armed.tick()
    assert shown(command) == (State.FAULT, Reason.FEEDBACK_JUMPED)
    assert command.detail.startswith(group)
    assert np.abs(armed.run(0.5).motion.position - before)[:14].max() < 0.05, "it braked, and was not drawn there"


def test_after_a_silence_the_arms_may_be_where_they_were_sent(armed):
    armed.accept(ROLL, ramp=True, rows=20)
    armed.run(0.3)
    for _ in range(5):
        armed.age = {"left_arm": 1.0}
        armed.run(0.15)
        armed.age = {}
        assert armed.run(0.1).state in (State.TRACKING, State.HOLDING, State.STOPPING)


def test_a_jump_that_is_no_fault_is_held_for_a_second():
    rig = Rig({"watchdog.feedback_jump.reaction": "hold", "watchdog.tracking_error.limit": 3.0}).armed()
    rig.accept(0.1)
    rig.run(0.2)
    rig.joints[2] -= 0.5
    assert shown(rig.run(0.9)) == (State.HOLDING, Reason.FEEDBACK_JUMPED)
    assert rig.run(0.3).reason != Reason.FEEDBACK_JUMPED


def test_blocked_arms_are_a_fault_that_holds_until_they_are_armed_where_they_are(armed):
    armed.accept(ROLL, ramp=True, rows=20)
    armed.run(0.3)
    armed.plant.lag = 1e9  # something holds them
    blocked_at = armed.joints.copy()
    while armed.tick().state != State.FAULT:
        pass
    at_fault = armed.sent[-1].motion
    armed.run(2.0)
    held = armed.sent[-1]
    assert shown(held) == (State.FAULT, Reason.TRACKING_ERROR)
    stopping = at_fault.velocity**2 / (2 * armed.controller.limiter.acceleration)
    moved = np.abs(held.motion.position - at_fault.position)
    assert (moved <= stopping + 1e-9)[:14].all(), "braked, and not moved since"
    assert np.abs(held.motion.position - blocked_at)[:14].max() <= 0.65, "limits.step and the way of braking"
    check_limits(armed.sent, armed.controller.limiter)
    assert armed.controller.arm() == Reason.NONE
    np.testing.assert_allclose(armed.tick().motion.position[:14], blocked_at[:14], atol=1e-3)


@pytest.mark.parametrize("means", ["stop", "disarm", "estop", "stale", "driver"])
def test_nothing_moves_after_a_tracking_error_whatever_else_happens(armed, means):
    armed.accept(ROLL, ramp=True, rows=20)
    armed.run(0.3)
    armed.plant.lag = 1e9
    while armed.tick().state != State.FAULT:
        pass
    {
        "stop": armed.controller.stop,
        "disarm": armed.controller.disarm,
        "estop": lambda: armed.controller.set_estop(True),
        "stale": lambda: armed.age.update(left_arm=0.5),
        "driver": lambda: armed.controller.set_driver_error("left", "hot"),
    }[means]()
    before = armed.sent[-1].motion
    while before.velocity.any():
        now = armed.tick().motion
        if now is None:
            break
        slower = np.maximum(np.abs(before.velocity) - armed.controller.limiter.acceleration * 0.01, 0.0)
        assert (np.abs(now.velocity) <= slower + 1e-9).all()
        before = now
    armed.plant.lag = 0.05
    commands = [armed.tick() for _ in range(100)]
    assert not any(command.motion.velocity.any() for command in commands if command.motion)


def test_a_late_control_loop_slows_the_plan():
    armed = Rig({"watchdog.chunk_age.limit": 5.0}).armed()
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.4)
    normal = armed.sent[-1].motion.velocity[0]
    command = armed.tick(8 * TICK)
    assert command.reason == Reason.CONTROL_OVERRUN
    armed.run(0.3)
    assert armed.sent[-1].motion.velocity[0] == pytest.approx(normal / 2, rel=0.1)
    assert armed.run(0.9).reason == Reason.NONE


def test_heartbeat_is_needed_when_it_is_required():
    rig = Rig({"require_heartbeat": True})
    assert rig.controller.arm() == Reason.HEARTBEAT_LOST
    rig.heartbeat_age = 0.1
    rig.tick()
    rig.armed()
    assert rig.tick().state == State.HOLDING
    rig.heartbeat_age = 0.6
    assert shown(rig.tick()) == (State.FAULT, Reason.HEARTBEAT_LOST)
    rig.heartbeat_age = 0.1
    rig.tick()
    assert rig.tick().state == State.FAULT, "latched"


def test_a_heartbeat_that_was_heard_must_go_on_where_none_is_required(armed):
    armed.accept(0.2)
    assert armed.tick().state == State.TRACKING
    armed.heartbeat_age = 0.4
    assert armed.tick().state == State.TRACKING
    armed.heartbeat_age = 0.6
    assert shown(armed.run(0.3)) == (State.FAULT, Reason.HEARTBEAT_LOST)


def test_a_released_deadman_switch_holds_at_once_and_the_plan_goes_on_when_it_is_pressed(armed):
    armed.heartbeat_age = 0.0
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.4)
    armed.released = True
    assert shown(armed.tick()) == (State.STOPPING, Reason.HEARTBEAT_RELEASED)
    assert shown(armed.run(0.4)) == (State.HOLDING, Reason.HEARTBEAT_RELEASED)
    armed.released = False
    assert armed.tick().state == State.TRACKING
    check_limits(armed.sent, armed.controller.limiter)


def test_arming_needs_every_deadman_switch_pressed(rig):
    rig.heartbeat_age, rig.released = 0.0, True
    rig.tick()
    assert rig.controller.arm() == Reason.HEARTBEAT_RELEASED


@pytest.mark.parametrize("reaction", ["hold", "fault"])
def test_the_reaction_of_a_watchdog_is_configured(reaction):
    rig = Rig({"watchdog.feedback_age.reaction": reaction}).armed()
    rig.age["left_arm"] = 0.3
    assert rig.tick().state == (State.FAULT if reaction == "fault" else State.HOLDING)
    rig.age.clear()
    rig.tick()
    assert (rig.tick().state == State.HOLDING) == (reaction == "hold")


GRIP = np.eye(14)[6]  # 1 mm of the left gripper


def gripper(rig, at, shown=lambda stroke: stroke / 100):
    """A gripper that is measured through a sensor of its own, at `at` mm when it is armed."""
    rig.joints[6] = rig.home[6] = at
    inputs = rig.inputs

    def sensed():
        found = inputs()
        stroke = found.feedback["left_gripper"].positions
        stroke[:] = shown(stroke)
        return found

    rig.inputs = sensed
    rig.run(0.3)
    return rig.armed()


def test_a_gripper_that_is_sent_as_0_to_1_is_a_fault_that_names_the_factor(rig):
    gripper(rig, 70.0)
    rig.accept(-40 * GRIP, ramp=True, rows=10)
    rig.run(0.5)
    assert rig.states[-1][0] != State.FAULT
    before = len(rig.sent)
    while rig.tick().state != State.FAULT:
        assert len(rig.sent) - before < 200
    assert rig.sent[-1].reason == Reason.FEEDBACK_UNIT
    assert "left_gripper, 0." in rig.sent[-1].detail
    assert "a factor of 100" in rig.sent[-1].detail
    assert "range: [0, 1]" in rig.sent[-1].detail
    check_limits(rig.sent, rig.controller.limiter)


@pytest.mark.parametrize(
    ("at", "shown", "travel"),
    [
        (0.6, lambda stroke: stroke, 60.0),  # closed, in mm, and opens
        (0.6, lambda stroke: np.clip(stroke, 0.6, 100), 60.0),
        (70.0, lambda stroke: stroke / 100, -60.0),  # from what looks like 0.7 mm to 10: not far enough to tell
        (45.0, lambda stroke: 45 + 0 * stroke, -40.0),  # holds something
        (70.0, lambda stroke: stroke, -69.5),
        (0.6, lambda stroke: 0.6 + 0 * stroke, 0.0),
    ],
)
def test_a_gripper_that_may_be_in_mm_is_none(rig, at, shown, travel):
    gripper(rig, at, shown)
    for number in range(1, 5):
        rig.accept(travel * GRIP, chunk_id=number)
        rig.run(1.0)
    assert Reason.FEEDBACK_UNIT not in {reason for _, reason in rig.states}


def test_a_closed_gripper_is_armed_and_one_outside_its_limits_is_not(rig):
    gripper(rig, 0.6, lambda stroke: stroke)
    rig.controller.disarm()
    rig.run(0.2)
    rig.joints[6] = 104.0
    rig.run(0.3)
    assert rig.controller.arm() == Reason.OUTSIDE_LIMITS
    assert "left_gripper at 104" in rig.controller.refused
