"""A person takes over from the policy, and gives back."""

import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.controller import MotionController
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.robot.config import RobotConfig

from .rig import ROBOT, Rig, check_limits, shown

FIRST = np.eye(14)[0]
FOLLOWING = (State.TAKEOVER, Reason.TAKEOVER)


@pytest.fixture
def taken(armed):
    """The person's input is where the arms are, and followed."""
    armed.person = armed.joints[:14].copy()
    assert armed.takeover(True) == Reason.NONE
    assert shown(armed.tick()) == FOLLOWING
    return armed


def without(*groups):
    """An armed bridge to which a person's input for these groups cannot come."""
    data = ROBOT.model_dump()
    for name in groups:
        data["groups"][name]["takeover"] = None
    rig = Rig()
    rig.controller = MotionController(RobotConfig.model_validate(data), BridgeSettings.load())
    rig.run(0.3)
    return rig.armed()


def swing(rig, seconds, amplitude=0.4, period=2.0):
    """The person moves a joint to and fro."""
    begin = rig.person.copy()
    for tick in range(round(seconds * 100)):
        rig.person = begin + FIRST * amplitude * np.sin(2 * np.pi * tick / 100 / period)
        command = rig.tick()
    return command


def test_the_arms_follow_within_the_limits_and_with_little_lag(taken):
    begin, wanted, sent = taken.person[0], [], []
    for tick in range(400):
        taken.person = taken.home[:14] + FIRST * 0.3 * np.sin(np.pi * tick / 100)  # 0.94 rad/s at most
        assert shown(taken.tick()) == FOLLOWING
        wanted.append(taken.person[0] - begin)
        sent.append(taken.sent[-1].motion.position[0] - begin)
    lags = [np.abs(np.array(wanted[100:-lag]) - sent[100 + lag :]).max() for lag in range(1, 30)]
    assert lags[np.argmin(lags)] < 0.03
    assert np.argmin(lags) < 12, f"{10 * np.argmin(lags)} ms behind"
    assert taken.sent[-1].chunk is None
    check_limits(taken.sent, taken.controller.limiter)


def test_a_slow_input_is_smoothed(taken):
    """Between messages the arms go on as they went: they do not start and stop with each."""
    begin = len(taken.sent)
    for tick in range(300):
        if tick % 5 == 0:
            taken.person = taken.home[:14] + FIRST * 0.16 * np.sin(np.pi * tick / 100)  # 0.5 rad/s at most
        assert shown(taken.tick()) == FOLLOWING
    velocity = np.array([command.motion.velocity[0] for command in taken.sent[begin + 100 :]])
    assert np.abs(np.diff(velocity) / 0.01).max() < 4.0


def test_an_input_that_steps_is_reached_without_overshoot(taken):
    taken.person = taken.person + FIRST * 0.25
    taken.run(2.0)
    way = [command.motion.position[0] - taken.home[0] for command in taken.sent if command.state == State.TAKEOVER]
    assert 0.25 - 1e-3 < way[-1] <= max(way) < 0.251
    check_limits(taken.sent, taken.controller.limiter)


def test_a_policy_in_motion_is_taken_over_without_a_leap(armed):
    armed.accept(FIRST * 1.2, ramp=True)
    armed.run(1.0)
    armed.person = armed.joints[:14].copy()
    assert armed.takeover(True) == Reason.NONE
    swing(armed, 1.0)
    assert {command.state for command in armed.sent[-100:]} == {State.TAKEOVER}
    check_limits(armed.sent, armed.controller.limiter)


@pytest.mark.parametrize(
    ("input_", "reason", "about"),
    [
        (None, Reason.TAKEOVER_INPUT, "left_arm, none comes"),
        ("old", Reason.TAKEOVER_INPUT, "left_arm, 0.21 s old"),
        ("partly", Reason.TAKEOVER_INPUT, "right_gripper, none comes"),
        ((8, 0.12), Reason.TAKEOVER_FAR, "right_arm_joint2, 0.12 rad"),
        ((8, np.nan), Reason.TAKEOVER_FAR, "right_arm_joint2, nan rad"),
        ((13, -11.0), Reason.TAKEOVER_FAR, "right_gripper, 11 mm"),
        ((13, 9.0), Reason.NONE, ""),
        ((8, -0.09), Reason.NONE, ""),
    ],
)
def test_taking_over_needs_an_input_near_the_measured_pose(armed, input_, reason, about):
    armed.noise = 0.0
    armed.tick()
    if input_ is not None:
        armed.person = armed.joints[:14].copy()
    if input_ == "old":
        armed.input_age = 0.21
    elif input_ == "partly":
        armed.silent = {"right_gripper"}
    elif input_ is not None:
        armed.person[input_[0]] += input_[1]
    assert armed.takeover(True) == reason
    assert armed.controller.refused == about
    assert armed.controller.taken_over == (reason == Reason.NONE)
    assert armed.tick().state == (State.TAKEOVER if reason == Reason.NONE else State.HOLDING)


@pytest.mark.parametrize("prepare", ["disarmed", "estop", "braking", "homing", "feedback"])
def test_taking_over_is_refused_when_it_is_not_safe(rig, prepare):
    expected = {
        "disarmed": Reason.NOT_ARMED, "estop": Reason.ESTOP_PRESSED, "braking": Reason.NOT_STILL,
        "homing": Reason.HOMING, "feedback": Reason.FEEDBACK_STALE,
    }[prepare]  # fmt: skip
    if prepare != "disarmed":
        rig.armed()
        rig.accept(FIRST * 1.2, ramp=True)
        rig.run(0.5)
    if prepare == "estop":
        rig.controller.set_estop(True)
    if prepare in ("braking", "homing"):
        rig.controller.stop()
    if prepare == "homing":
        rig.run(1.0)
        assert rig.controller.home(rig.clock.now_ns) == Reason.NONE
    if prepare == "feedback":
        rig.age["left_arm"] = 0.2
        rig.tick()
    rig.person = rig.joints[:14].copy()
    assert rig.takeover(True) == expected
    assert not rig.controller.taken_over


@pytest.mark.parametrize("how", ["gone", "old", "nan", "leap"])
def test_an_input_that_ends_or_leaps_holds_until_it_is_near_again(taken, how):
    swing(taken, 0.5)
    begin, last = len(taken.sent), taken.person.copy()
    if how == "gone":
        taken.person = None
    if how == "old":
        taken.input_age = 0.21
    if how == "nan":
        taken.person[3] = np.nan
    if how == "leap":
        taken.person = taken.person + FIRST
    reason = Reason.TAKEOVER_INPUT if how in ("gone", "old") else Reason.TAKEOVER_FAR
    assert shown(taken.tick()) == (State.STOPPING, reason)
    assert shown(taken.run(1.0)) == (State.HOLDING, reason)
    speeds = [np.abs(command.motion.velocity).max() for command in taken.sent[begin:]]
    assert speeds == sorted(speeds, reverse=True)

    taken.input_age, taken.person = 0.0, last + FIRST * 0.5
    assert shown(taken.run(0.5)) == (State.HOLDING, Reason.TAKEOVER_FAR)
    assert taken.sent[-1].detail.startswith("left_arm_joint1, 0.")
    taken.person = taken.joints[:14] + FIRST * 0.05
    assert shown(taken.tick()) == FOLLOWING
    assert taken.controller.taken_over
    check_limits(taken.sent, taken.controller.limiter)


def test_taking_over_again_begins_anew(taken):
    swing(taken, 0.3, amplitude=2.0)
    assert np.abs(taken.person - taken.joints[:14]).max() > 0.1
    taken.takeover(False)
    assert taken.takeover(True) == Reason.NOT_STILL
    assert taken.accept(0.0) == Reason.NONE
    assert taken.takeover(True) == Reason.TAKEOVER_FAR, "even before a control tick"


def test_a_gripper_may_leap(taken):
    taken.person[6] = 0.0
    assert shown(taken.run(1.0)) == FOLLOWING
    assert taken.joints[6] < 0.5
    check_limits(taken.sent, taken.controller.limiter)


def test_a_hold_on_the_way_lasts_until_the_input_is_near_again(taken):
    swing(taken, 0.5)
    taken.age["torso"] = 1.0
    assert shown(taken.run(0.5)) == (State.HOLDING, Reason.FEEDBACK_STALE)
    taken.person = taken.person + FIRST * 0.5
    taken.age.clear()
    assert shown(taken.run(0.5)) == (State.HOLDING, Reason.TAKEOVER_FAR)
    taken.person = taken.joints[:14].copy()
    assert shown(taken.tick()) == FOLLOWING


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        ("stop", State.HOLDING, Reason.STOP_REQUESTED),
        ("disarm", State.DISARMED, Reason.NOT_ARMED),
        ("estop", State.ESTOP, Reason.ESTOP_PRESSED),
        ("driver", State.FAULT, Reason.DRIVER_ERROR),
    ],
)
def test_what_brakes_ends_it(taken, end, state, reason):
    swing(taken, 0.5)
    begin = len(taken.sent)
    actions = {
        "stop": taken.controller.stop,
        "disarm": taken.controller.disarm,
        "estop": lambda: taken.controller.set_estop(True),
        "driver": lambda: taken.controller.set_driver_error("left", "hot"),
    }
    actions[end]()
    assert not taken.controller.taken_over
    assert shown(taken.run(0.5)) == (state, reason)
    speeds = [np.abs(command.motion.velocity).max() for command in taken.sent[begin:] if command.motion]
    assert speeds == sorted(speeds, reverse=True)
    check_limits(taken.sent, taken.controller.limiter)


def test_the_policy_goes_on_with_what_it_observes_afterwards(armed):
    armed.accept(0.2, chunk_id=1, epoch=3)
    armed.run(0.5)
    armed.person = armed.joints[:14].copy()
    armed.takeover(True)
    swing(armed, 0.5)
    assert armed.accept(0.1, chunk_id=2, epoch=3) == Reason.CHUNK_WHILE_TAKEOVER
    assert armed.accept(0.1, chunk_id=1, epoch=9, session=2) == Reason.CHUNK_OTHER_SESSION
    begin = len(armed.sent)
    armed.takeover(False)
    assert shown(armed.tick()) == (State.STOPPING, Reason.TAKEOVER_ENDED)
    assert shown(armed.run(0.5)) == (State.HOLDING, Reason.TAKEOVER_ENDED)
    assert armed.accept(0.1, chunk_id=3, epoch=3, age=0.6) == Reason.CHUNK_NOT_ASKED_FOR, "seen before"
    assert armed.accept(0.1, chunk_id=4, epoch=3) == Reason.NONE, "neither a new epoch nor arming"
    assert armed.run(0.2).state == State.TRACKING
    way = [command.motion.position[0] for command in armed.sent[begin:]]
    assert np.abs(np.diff(way)).max() <= 1.5 * 0.01 + 1e-9
    check_limits(armed.sent, armed.controller.limiter)


def test_a_stop_before_still_needs_a_newer_epoch_afterwards(armed):
    armed.accept(0.1, epoch=3)
    armed.run(0.2)
    armed.controller.stop()
    armed.run(0.5)
    armed.person = armed.joints[:14].copy()
    assert armed.takeover(True) == Reason.NONE
    armed.tick()
    armed.takeover(False)
    assert armed.accept(0.1, chunk_id=2, epoch=3) == Reason.CHUNK_OLD_EPOCH
    assert armed.accept(0.1, chunk_id=2, epoch=4) == Reason.NONE


def test_a_clock_that_jumps_gives_nothing_back_to_the_policy(taken):
    taken.clock.now_ns += 2 * 10**9
    assert taken.tick().reason == Reason.CLOCK_JUMPED_AHEAD
    assert taken.controller.taken_over
    assert shown(taken.tick()) == FOLLOWING


def test_joints_without_an_input_come_to_rest():
    rig = without("right_arm", "right_gripper")
    rig.accept((FIRST + np.eye(14)[7]) * 0.9, ramp=True)
    rig.run(1.0)
    rig.person, rig.silent = rig.joints[:14].copy(), {"right_arm", "right_gripper"}
    assert rig.takeover(True) == Reason.NONE
    begin = rig.joints[7]
    swing(rig, 1.0)
    assert rig.sent[-1].state == State.TAKEOVER
    assert np.abs(rig.sent[-1].motion.velocity[7:14]).max() < 1e-9
    assert abs(rig.joints[7] - begin) < 0.1
    check_limits(rig.sent, rig.controller.limiter)


def test_without_a_topic_nobody_takes_over():
    rig = without(*ROBOT.groups)
    assert rig.takeover(True) == Reason.TAKEOVER_INPUT
    assert "no group of the robot file has a topic `takeover`" in rig.controller.refused


def test_the_workspace_is_kept(taken):
    """The person pushes into the table, and takes the arm back."""
    up, down = taken.home[:14].copy(), taken.home[:14].copy()
    down[1:3] = [2.6, -0.6]
    for share in np.linspace(0, 1, 120):
        taken.person = up + share * (down - up)
        taken.tick()
    taken.run(0.2)
    barrier = taken.sent[-1]
    assert barrier.state == State.TAKEOVER
    assert barrier.reason in (Reason.LIMIT_TABLE, Reason.LIMIT_BOX, Reason.LIMIT_BODY, Reason.LIMIT_OWN_ARM)
    for share in np.linspace(0, 1, 120):
        taken.person = down + share * (up - down)
        taken.tick()
    assert shown(taken.run(0.6)) == FOLLOWING
    np.testing.assert_allclose(taken.joints[:14], up, atol=2e-2)
    check_limits(taken.sent, taken.controller.limiter)


def test_no_time_is_spent_on_it_while_nobody_takes_over(armed, monkeypatch):
    monkeypatch.setattr("galaxea_r1lite_bridge.execution.takeover.Takeover.refusal", None)
    armed.person = armed.joints[:14].copy()
    armed.accept(0.1)
    assert armed.run(0.5).state == State.TRACKING
