import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.reasons import Reason, State

from .rig import Rig, check_limits, shown


def test_starts_disarmed_and_sends_nothing(rig):
    rig.accept(0.1)
    command = rig.tick()
    assert shown(command) == (State.DISARMED, Reason.NOT_ARMED)
    assert command.motion is None


def test_stop_decelerates_and_ignores_the_epochs_seen_so_far(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True, epoch=3)
    armed.run(0.5)
    armed.controller.stop()
    assert shown(armed.tick()) == (State.STOPPING, Reason.STOP_REQUESTED)
    assert shown(armed.run(0.5)) == (State.HOLDING, Reason.STOP_REQUESTED)
    assert armed.accept(0.1, chunk_id=2, epoch=3) == Reason.CHUNK_OLD_EPOCH
    assert armed.accept(0.1, chunk_id=1, epoch=4) == Reason.NONE
    check_limits(armed.sent, armed.controller.limiter)


def test_an_error_of_our_own_is_a_fault_in_which_the_arms_brake(armed, monkeypatch):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    assert np.abs(armed.run(0.5).motion.velocity).max() > 0.3

    def broken(*_, **__):
        raise ZeroDivisionError("boom")

    with monkeypatch.context() as patched:
        patched.setattr(armed.controller, "_watch", broken)
        first = armed.tick()
        assert shown(first) == (State.FAULT, Reason.CONTROL_FAILED)
        assert first.detail == "ZeroDivisionError('boom')"
        assert not armed.run(0.6).motion.velocity.any()
        armed.controller.disarm()
        assert armed.run(0.1).motion is None
        assert armed.tick().motion is None, "also where nothing is sent"
    check_limits(armed.sent, armed.controller.limiter)
    armed.run(0.1)
    assert armed.controller.arm() == Reason.NONE


def test_disarming_in_motion_decelerates_first(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.5)
    armed.controller.disarm()
    assert armed.tick().state == State.STOPPING
    command = armed.run(0.5)
    assert shown(command) == (State.DISARMED, Reason.NOT_ARMED)
    assert command.motion is None
    check_limits(armed.sent, armed.controller.limiter)


def test_estop_latches_until_released_and_armed_again(armed):
    armed.accept(np.eye(14)[0] * 1.2, ramp=True)
    armed.run(0.5)
    armed.controller.set_estop(True)
    assert shown(armed.tick()) == (State.ESTOP, Reason.ESTOP_PRESSED)
    command = armed.run(0.5)
    assert shown(command) == (State.ESTOP, Reason.ESTOP_PRESSED)
    assert not command.motion.velocity.any()
    assert armed.controller.arm() == Reason.ESTOP_PRESSED
    armed.controller.set_estop(False)
    assert armed.tick().state == State.ESTOP, "released, but latched"
    armed.accept(0.1, chunk_id=2)
    assert armed.run(0.1).state == State.ESTOP
    assert armed.controller.arm() == Reason.NONE
    assert shown(armed.tick()) == (State.HOLDING, Reason.ARMED)
    check_limits(armed.sent[:-1], armed.controller.limiter)


def test_estop_of_a_disarmed_bridge_latches_too(rig):
    rig.controller.set_estop(True)
    rig.controller.set_estop(False)
    assert rig.tick().state == State.ESTOP
    assert rig.tick().motion is None
    rig.armed()
    assert rig.tick().state == State.HOLDING


def test_a_driver_error_is_a_fault_while_it_lasts(armed):
    armed.controller.set_driver_error("left", "overheated 7")
    command = armed.tick()
    assert shown(command) == (State.FAULT, Reason.DRIVER_ERROR)
    assert command.detail == "left: overheated 7"
    assert armed.controller.arm() == Reason.DRIVER_ERROR
    armed.controller.set_driver_error("left", "")
    assert armed.controller.arm() == Reason.NONE


def test_home_is_slow_and_ignores_chunks(armed):
    armed.accept(0.4, rows=10)
    armed.run(1.2)
    assert armed.controller.home(armed.clock.now_ns) == Reason.NONE
    begin = len(armed.sent)
    assert shown(armed.tick()) == (State.TRACKING, Reason.HOMING)
    assert armed.accept(0.1, chunk_id=2, epoch=9) == Reason.CHUNK_WHILE_HOMING
    command = armed.run(6)
    assert shown(command) == (State.HOLDING, Reason.AT_HOME)
    np.testing.assert_allclose(command.motion.position[:14], armed.home[:14], atol=1e-3)
    fastest = max(np.abs(c.motion.velocity[armed.controller.joints.angular]).max() for c in armed.sent[begin:])
    assert 0.2 < fastest <= 0.3 + 1e-6
    assert not any(c.all_groups for c in armed.sent if c.motion)
    assert armed.accept(0.1, chunk_id=2, epoch=1) == Reason.CHUNK_OLD_EPOCH
    check_limits(armed.sent, armed.controller.limiter)


def test_home_stays_slow_after_a_hold_on_the_way(armed):
    armed.accept(0.4, rows=10)
    armed.run(1.2)
    armed.controller.home(armed.clock.now_ns)
    armed.run(0.6)
    begin = len(armed.sent)
    armed.age["torso"] = 1.0
    assert shown(armed.run(1.0)) == (State.HOLDING, Reason.FEEDBACK_STALE)
    armed.age.clear()
    assert shown(armed.run(5.0)) == (State.HOLDING, Reason.AT_HOME)
    fastest = max(np.abs(c.motion.velocity[armed.controller.joints.angular]).max() for c in armed.sent[begin:])
    assert fastest <= 0.35
    check_limits(armed.sent, armed.controller.limiter)


def test_the_torso_moves_only_when_asked():
    rig = Rig({"watchdog.feedback_jump.limit": 3.0})
    rig.joints[14:] -= [0.2, 0.0, -0.1]
    rig.run(0.3)
    rig.armed()
    rig.controller.home(rig.clock.now_ns)
    rig.run(1.0)
    np.testing.assert_allclose(rig.joints[14:] - rig.home[14:], [-0.2, 0.0, 0.1], atol=2e-3)
    assert rig.controller.home(rig.clock.now_ns, torso=True) == Reason.NONE
    arms = rig.sent[-1].motion.position[:14].copy()
    assert rig.tick().all_groups
    command = rig.run(8)
    assert command.reason == Reason.AT_HOME
    np.testing.assert_allclose(rig.joints[14:], rig.home[14:], atol=2e-3)
    np.testing.assert_allclose(command.motion.position[:14], arms, atol=1e-9)
    check_limits([c for c in rig.sent if c.all_groups], rig.controller.limiter, joints=17)


def test_a_stop_on_the_way_decelerates_the_torso_too():
    rig = Rig({"watchdog.feedback_jump.limit": 3.0})
    rig.joints[14] -= 0.3
    rig.run(0.3)
    rig.armed()
    rig.controller.home(rig.clock.now_ns, torso=True)
    rig.run(1.5)
    rig.controller.stop()
    rig.run(1.0)
    moving = [command for command in rig.sent if command.all_groups]
    assert moving[-1].state == State.STOPPING or not moving[-1].motion.velocity[14:].any()
    assert np.abs(moving[-1].motion.velocity[14:]).max() < 0.01
    check_limits(moving, rig.controller.limiter, joints=17)


@pytest.mark.parametrize("prepare", ["disarmed", "estop", "moving"])
def test_home_is_refused_when_it_is_not_safe(rig, prepare):
    expected = {"disarmed": Reason.NOT_ARMED, "estop": Reason.ESTOP_PRESSED, "moving": Reason.NOT_STILL}[prepare]
    if prepare != "disarmed":
        rig.armed()
        rig.accept(0.4)
        rig.run(0.2)
    if prepare == "estop":
        rig.controller.set_estop(True)
    assert rig.controller.home(rig.clock.now_ns) == expected


@pytest.mark.parametrize("offset", [0.01, 2 * np.pi, 1e9, -1e300])
@pytest.mark.parametrize("plan", [0.3, 0.0, -9.0])
def test_no_limit_moves_the_torso(plan, offset):
    """Measured outside of its limits by an encoder that is off, or moved there by others."""
    rig = Rig({"watchdog.feedback_jump.reaction": "hold", "watchdog.tracking_error.limit": 3.0}).armed()
    rig.joints[14] += 0.24 - rig.joints[14] + offset
    rig.run(0.3)
    rig.accept(plan)
    begin = len(rig.sent)
    rig.run(1.0)
    assert not any(command.all_groups or command.motion.velocity[14:].any() for command in rig.sent[begin:])
