import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.executor import Executor, ExecutorConfig, JointFeedback
from galaxea_r1lite_bridge.execution.limits import Limiter
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason, State

S = 1_000_000_000
STEP = S // 15
TICK = S // 100
NAMES = ["a1", "a2", "g"]
GROUPS = {"arm": slice(0, 2), "gripper": slice(2, 3)}
CONFIG = ExecutorConfig(max_chunk_age=1.5, max_feedback_age=0.1, future_tolerance=0.05, max_dt=0.02)
LIMITER = Limiter(
    np.array([-1.0, -1.0, 0.0]), np.array([1.0, 1.0, 100.0]), np.array([2.0, 2.0, 300.0]), np.array([8.0, 8.0, 3000.0])
)


def feedback(arm=(0.0, 0.0), gripper=50.0, age=0.0):
    return {"arm": JointFeedback(np.array(arm), age), "gripper": JointFeedback(np.array([gripper]), age)}


def chunk(chunk_id=1, epoch=1, stamp=10 * S, target=(0.1, -0.1, 60.0), names=NAMES, rows=32):
    return Chunk(chunk_id, epoch, stamp, STEP, names, np.tile(np.array(target, float), (rows, 1)))


@pytest.fixture
def executor():
    return Executor(CONFIG, LIMITER, NAMES, GROUPS)


@pytest.fixture
def armed(executor):
    assert executor.arm(feedback()) == Reason.NONE
    executor.step(10 * S, feedback())
    return executor


def test_starts_disarmed_and_sends_nothing(executor):
    executor.accept(chunk(), 10 * S)
    command = executor.step(10 * S, feedback())
    assert (command.state, command.reason, command.positions) == (State.DISARMED, Reason.NOT_ARMED, None)


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({"arm": JointFeedback(), "gripper": JointFeedback()}, Reason.FEEDBACK_MISSING),
        (feedback(age=0.2), Reason.FEEDBACK_STALE),
        (feedback() | {"arm": JointFeedback(np.zeros(2), 0.0, invalid=True)}, Reason.FEEDBACK_INVALID),
    ],
)
def test_arming_needs_good_feedback_and_says_why(executor, measured, reason):
    assert executor.arm(measured) == reason
    assert executor.step(10 * S, measured).state == State.DISARMED


def test_armed_it_holds_the_measured_pose_until_a_chunk_comes(executor):
    executor.arm(feedback((0.3, -0.2), 40.0))
    command = executor.step(10 * S, feedback((0.31, -0.2), 40.0))
    assert (command.state, command.reason) == (State.HOLDING, Reason.ARMED)
    np.testing.assert_array_equal(command.positions, [0.3, -0.2, 40.0])


def test_tracking_reaches_the_target_at_limited_speed_then_holds_when_the_plan_ends(armed):
    assert armed.accept(chunk(target=(0.5, 0.0, 50.0), rows=16), 10 * S) == Reason.NONE
    previous, now = np.array([0.0, 0.0, 50.0]), 10 * S
    for _ in range(90):
        now += TICK
        command = armed.step(now, feedback())
        assert command.state == State.TRACKING
        assert (np.abs(command.positions - previous) <= LIMITER.velocity * 0.01 + 1e-9).all()
        previous = command.positions
    np.testing.assert_allclose(command.positions, [0.5, 0.0, 50.0], atol=1e-3)
    now += 2 * STEP
    for _ in range(5):
        now += TICK
        command = armed.step(now, feedback())
    assert (command.state, command.reason) == (State.HOLDING, Reason.PLAN_ENDED)
    np.testing.assert_allclose(command.positions, [0.5, 0.0, 50.0], atol=1e-3)


def test_when_the_chunks_end_in_motion_it_brakes_within_the_limits_and_then_holds(armed):
    ramp = Chunk(1, 1, 10 * S, STEP, NAMES, np.linspace([0, 0, 50], [1.9, 0, 50], 32))
    armed.accept(ramp, 10 * S)
    now, positions, states = 10 * S, [], []
    for _ in range(60):
        now += TICK
        positions.append(armed.step(now, feedback()).positions[0])
    for _ in range(60):
        now += TICK
        command = armed.step(now, feedback(age=1.0))
        positions.append(command.positions[0])
        states.append(command.state)
    assert states[0] == State.STOPPING
    assert states[-1] == State.HOLDING
    assert states == sorted(states, reverse=True), "once at rest it stays"
    velocity = np.diff(positions) / 0.01
    assert velocity[50] > 0.5
    assert (np.abs(np.diff(velocity) / 0.01) <= 8.0 + 1e-6).all()
    assert velocity[-1] == 0


def test_arming_again_while_moving_changes_nothing(armed):
    armed.accept(chunk(target=(0.5, 0.0, 50.0)), 10 * S)
    for tick in range(1, 20):
        before = armed.step(10 * S + tick * TICK, feedback()).positions
    assert armed.arm(feedback((-0.9, 0.0))) == Reason.NONE
    after = armed.step(10 * S + 20 * TICK, feedback()).positions
    assert np.abs(after - before).max() < 0.03


def test_a_stale_plan_is_not_followed(armed):
    armed.accept(chunk(), 10 * S)
    command = armed.step(10 * S + 1_600_000_000, feedback())
    assert (command.state, command.reason) == (State.HOLDING, Reason.PLAN_STALE)


def test_lost_feedback_holds_and_recovers(armed):
    armed.accept(chunk(), 10 * S)
    command = armed.step(10 * S + TICK, feedback(age=0.2))
    assert (command.state, command.reason) == (State.HOLDING, Reason.FEEDBACK_STALE)
    np.testing.assert_array_equal(command.positions, [0, 0, 50])
    assert armed.step(10 * S + 2 * TICK, feedback()).state == State.TRACKING


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (chunk(names=["a1", "a2", "x"]), Reason.CHUNK_WRONG_JOINTS),
        (chunk(target=(0.0, 0.0)), Reason.CHUNK_WRONG_JOINTS),
        (chunk(rows=0), Reason.CHUNK_WRONG_JOINTS),
        (chunk(target=(0.0, np.nan, 0.0)), Reason.CHUNK_NOT_FINITE),
        (chunk(target=(0.0, np.inf, 0.0)), Reason.CHUNK_NOT_FINITE),
        (chunk(epoch=0), Reason.CHUNK_OLD_EPOCH),
        (chunk(chunk_id=5), Reason.CHUNK_OUT_OF_ORDER),
        (chunk(chunk_id=9, stamp=8 * S), Reason.CHUNK_TOO_OLD),
        (chunk(chunk_id=9, stamp=11 * S), Reason.CHUNK_FROM_FUTURE),
    ],
)
def test_bad_chunks_are_dropped_with_a_reason_and_the_running_plan_stays(armed, bad, reason):
    good = chunk(chunk_id=5)
    armed.accept(good, 10 * S)
    assert armed.accept(bad, 10 * S) == reason
    assert armed.drops == {reason: 1}
    assert armed.step(10 * S + TICK, feedback()).chunk.chunk_id == good.chunk_id


def test_joints_are_found_by_name_whatever_their_order(armed):
    armed.accept(chunk(names=["g", "a2", "a1"], target=(51.0, 0.02, 0.01)), 10 * S)
    for tick in range(1, 60):
        command = armed.step(10 * S + tick * TICK, feedback())
    np.testing.assert_allclose(command.positions, [0.01, 0.02, 51.0], atol=1e-3)


def test_a_new_epoch_starts_chunk_ids_again(armed):
    armed.accept(chunk(chunk_id=7, epoch=3), 10 * S)
    assert armed.accept(chunk(chunk_id=1, epoch=4), 10 * S) == Reason.NONE
    assert armed.accept(chunk(chunk_id=8, epoch=3), 10 * S) == Reason.CHUNK_OLD_EPOCH


def test_stop_ignores_the_epochs_seen_so_far(armed):
    armed.accept(chunk(epoch=3), 10 * S)
    armed.stop()
    command = armed.step(10 * S + TICK, feedback())
    assert (command.state, command.reason) == (State.HOLDING, Reason.STOP_REQUESTED)
    assert armed.accept(chunk(chunk_id=2, epoch=3), 10 * S) == Reason.CHUNK_OLD_EPOCH
    assert armed.accept(chunk(chunk_id=1, epoch=4), 10 * S) == Reason.NONE


def test_a_backward_clock_discards_the_plan(armed):
    armed.accept(chunk(), 10 * S)
    command = armed.step(5 * S, feedback())
    assert (command.state, command.reason) == (State.HOLDING, Reason.CLOCK_JUMPED_BACK)
    assert armed.accept(chunk(stamp=5 * S), 5 * S) == Reason.NONE
    assert armed.step(5 * S + TICK, feedback()).state == State.TRACKING


def test_rearming_starts_from_the_measured_pose(armed):
    armed.accept(chunk(target=(0.8, 0.8, 90.0)), 10 * S)
    armed.step(10 * S + TICK, feedback())
    armed.disarm()
    assert armed.step(10 * S + 2 * TICK, feedback()).positions is None
    armed.arm(feedback((-0.4, 0.2), 10.0))
    np.testing.assert_array_equal(
        armed.step(10 * S + 3 * TICK, feedback((-0.4, 0.2), 10.0)).positions, [-0.4, 0.2, 10.0]
    )


def test_seam_is_the_jump_of_the_arms_not_of_the_grippers(armed):
    armed.accept(chunk(target=(0.1, 0.0, 10.0)), 10 * S)
    armed.accept(chunk(chunk_id=2, target=(0.4, 0.0, 90.0)), 10 * S)
    assert armed.seam == pytest.approx(0.3)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-3, 3),
            st.floats(-200, 200),
            st.integers(-40, 5),
            st.integers(0, 4),
            st.floats(0, 0.3),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_whatever_comes_commands_stay_inside_the_limits(events):
    executor = Executor(CONFIG, LIMITER, NAMES, GROUPS)
    executor.arm(feedback())
    now, previous, speed, chunk_id = 10 * S, np.array([0.0, 0.0, 50.0]), np.zeros(3), 0
    executor.step(now, feedback())
    for arm, gripper, offset, ticks, age, nan in events:
        chunk_id += 1
        target = (np.nan if nan else arm, arm / 2, gripper)
        executor.accept(chunk(chunk_id, 1, now + offset * STEP, target), now)
        for _ in range(ticks):
            now += TICK
            command = executor.step(now, feedback(age=age))
            assert np.isfinite(command.positions).all()
            assert (command.positions >= LIMITER.lower).all()
            assert (command.positions <= LIMITER.upper).all()
            velocity = (command.positions - previous) / 0.01
            assert (np.abs(velocity) <= LIMITER.velocity + 1e-9).all()
            assert (np.abs(velocity - speed) <= LIMITER.acceleration * 0.01 + 1e-6).all()
            previous, speed = command.positions, velocity
