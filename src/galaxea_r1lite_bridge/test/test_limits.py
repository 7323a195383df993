import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.reasons import Reason

LIMITER = Limiter(
    np.array([-1.0, 0.0]),
    np.array([1.0, 100.0]),
    np.array([0.5, 200.0]),
    np.array([4.0, 2000.0]),
    np.array([0.3, np.inf]),
)
REST = np.zeros(2)
targets = st.tuples(st.floats(-5, 5), st.floats(-500, 500)).map(np.array)
positions = st.tuples(st.floats(-1, 1), st.floats(0, 100)).map(np.array)
speeds = st.tuples(st.floats(-3, 3), st.floats(-900, 900)).map(np.array)


def test_a_target_within_the_limits_is_met_exactly():
    motion = Motion(np.array([0.0, 50.0]), np.array([0.4, 100.0]))
    moved, limited = LIMITER.follow(motion, np.array([0.004, 51.0]), motion.velocity, 0.01)
    np.testing.assert_allclose(moved.position, [0.004, 51.0])
    assert not limited.any()


def test_a_ramp_is_followed_without_lag():
    motion, velocity = Motion(np.array([0.0, 50.0]), REST), np.array([0.3, 0.0])
    for tick in range(1, 101):
        motion, limited = LIMITER.follow(motion, np.array([0.3 * tick * 0.01, 50.0]), velocity, 0.01)
    np.testing.assert_allclose(motion.position, [0.3, 50.0], atol=1e-6)
    assert not limited.any()


def test_a_far_target_is_reached_without_overshoot_and_reported_on_the_way():
    motion = Motion(np.array([0.0, 50.0]), REST)
    path, flags = [], []
    for _ in range(300):
        motion, limited = LIMITER.follow(motion, np.array([0.8, 50.0]), REST, 0.01)
        path.append(motion.position[0])
        flags.append(limited[0])
    assert max(path) <= 0.8 + 1e-9
    assert path[-1] > 0.8 - 1e-3
    assert flags[0]
    assert (np.abs(np.diff(path)) <= 0.5 * 0.01 + 1e-12).all()


def test_a_target_that_cannot_be_followed_is_stayed_near():
    """A policy that jumps about: the command must not drift away from where its targets lie."""
    random, path, motion = np.random.default_rng(0), [], Motion(np.array([0.0, 50.0]), REST)
    for _ in range(200):
        target, speed = random.normal([0.2, 50.0], [0.3, 10.0]), random.normal([0, 0], [20.0, 800.0])
        for _ in range(7):
            motion, _ = LIMITER.follow(motion, target, speed, 0.01)
            path.append(motion.position)
    inner = np.array(path)[len(path) // 10 :]
    assert (np.abs(inner.mean(axis=0) - [0.2, 50.0]) < [0.15, 5.0]).all()
    assert np.abs(inner[:, 0] - 0.2).max() < 0.5


def test_the_step_counts_from_the_measured_position():
    motion, measured = Motion(np.array([0.0, 50.0]), REST), np.array([0.0, 0.0])
    for _ in range(300):
        motion, limited = LIMITER.follow(motion, np.array([0.8, 100.0]), REST, 0.01, measured)
    np.testing.assert_allclose(motion.position, [0.3, 100.0], atol=1e-3)
    assert limited.tolist() == [Reason.LIMIT_STEP, Reason.NONE]


def test_every_limit_is_named():
    motion = Motion(np.array([0.0, 50.0]), REST)
    assert LIMITER.follow(motion, np.array([0.8, 50.0]), REST, 0.01)[1][0] == Reason.LIMIT_ACCELERATION
    fast = Motion(np.array([0.0, 50.0]), np.array([0.5, 0.0]))
    assert LIMITER.follow(fast, np.array([0.8, 50.0]), REST, 0.01)[1][0] == Reason.LIMIT_VELOCITY
    assert LIMITER.follow(motion, np.array([1.8, 50.0]), REST, 0.01)[1][0] == Reason.LIMIT_POSITION


def test_braking_ends_where_it_is_predicted_to():
    motion = Motion(np.array([0.0, 50.0]), np.array([0.4, -150.0]))
    predicted = LIMITER.braking(motion, 3, 0.01)[0]
    while motion.velocity.any():
        motion = LIMITER.brake(motion, 0.01)
    np.testing.assert_allclose(motion.position, predicted, atol=1e-4)


def test_braking_takes_the_acceleration_limit():
    motion, ticks = Motion(np.array([0.0, 50.0]), np.array([0.4, 0.0])), 0
    while motion.velocity.any():
        motion, ticks = LIMITER.brake(motion, 0.01), ticks + 1
    assert ticks == 10
    assert LIMITER.brake(motion, 0.01).position.tolist() == motion.position.tolist()


@settings(max_examples=30, deadline=None)
@given(positions, positions, st.floats(0.005, 0.02), st.floats(0.2, 1.0))
def test_the_straight_motion_keeps_its_line_and_its_limits(start, goal, dt, pace):
    """In real time, and in that of a slower clock."""
    motion, way = Motion(start, REST), goal - start
    while (moved := LIMITER.straight(motion, goal, dt, pace=pace)) is not None:
        np.testing.assert_allclose(moved.position, motion.position + moved.velocity * dt, atol=1e-12)
        assert (np.abs(moved.velocity) <= LIMITER.velocity * pace + 1e-9).all()
        assert (np.abs(moved.velocity - motion.velocity) <= LIMITER.acceleration * dt * pace**2 + 1e-9).all()
        share = (moved.position - start) @ way / (way @ way)
        assert (motion.position - start) @ way / (way @ way) <= share + 1e-9, "it does not turn back"
        assert share <= 1 + 1e-9, "nor go too far"
        np.testing.assert_allclose(moved.position, start + share * way, atol=1e-6)
        motion = moved
    while motion.velocity.any():
        motion = LIMITER.brake(motion, dt)
    assert (np.abs(motion.position - goal) < [1e-3, 0.1]).all()
    assert not LIMITER.outside(motion.position, 1e-9).any()


def test_there_is_no_straight_motion_across_the_one_before():
    goal = np.array([0.5, 80.0])
    along = Motion(np.array([0.0, 50.0]), np.array([0.2, 12.0]))
    assert LIMITER.straight(along, goal, 0.01) is not None
    assert LIMITER.straight(Motion(along.position, -along.velocity), goal, 0.01) is None, "away from it"
    assert LIMITER.straight(Motion(along.position, along.velocity * [1, -1]), goal, 0.01) is None, "across"
    assert LIMITER.straight(along, goal, 0.0) is None, "in no time"
    assert LIMITER.straight(along, goal, 0.01, pace=0.0) is None, "nor while the clock stands still"
    assert LIMITER.straight(Motion(goal, REST), goal, 0.01) is None, "it is there"


def test_the_straight_motion_ends_at_limits():
    motion, measured = Motion(np.array([0.0, 50.0]), REST), np.array([0.0, 50.0])
    for goal, place, end in (([2.0, 50.0], None, 1.0), ([0.8, 50.0], measured, 0.3)):
        moved = motion
        while (onward := LIMITER.straight(moved, np.array(goal), 0.01, place)) is not None:
            moved = onward
        np.testing.assert_allclose(moved.position, [end, 50.0], atol=1e-3)


def test_what_stands_still_outside_its_limits_takes_no_part_in_a_straight_motion():
    """As the torso does where its encoder is off."""
    alone = LIMITER.straight(Motion(np.array([0.0, 50.0]), REST), np.array([0.5, 50.0]), 0.01)
    for off in (-1.0, 1e300):
        moved = LIMITER.straight(Motion(np.array([0.0, off]), REST), np.array([0.5, off]), 0.01)
        np.testing.assert_array_equal(moved.velocity, alone.velocity)


def test_no_time_no_motion():
    motion = Motion(np.array([0.0, 50.0]), np.array([0.4, 0.0]))
    assert LIMITER.follow(motion, np.array([1.0, 0.0]), REST, 0.0)[0] is motion
    assert LIMITER.brake(motion, 0.0) is motion


def test_from_outside_the_box_it_comes_back_within_the_limits():
    motion = Motion(np.array([1.4, 50.0]), REST)
    for _ in range(200):
        previous = motion
        motion, _ = LIMITER.follow(motion, np.array([2.0, 50.0]), REST, 0.01)
        assert motion.position[0] <= previous.position[0]
        assert abs(motion.velocity[0]) <= 0.5
    assert motion.position[0] <= 1.0 + 1e-3


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(targets, speeds, st.floats(0.0, 0.02), st.integers(1, 20), st.booleans()), max_size=40))
def test_no_sequence_of_targets_breaks_a_limit(sequence):
    motion = Motion(np.array([0.0, 50.0]), REST)
    for position, velocity, dt, ticks, braking in sequence:
        for _ in range(ticks):
            previous = motion
            motion = LIMITER.brake(motion, dt) if braking else LIMITER.follow(motion, position, velocity, dt)[0]
            assert (motion.position >= LIMITER.lower - 1e-9).all()
            assert (motion.position <= LIMITER.upper + 1e-9).all()
            assert (np.abs(motion.velocity) <= LIMITER.velocity + 1e-9).all()
            assert (np.abs(motion.velocity - previous.velocity) <= LIMITER.acceleration * dt + 2e-6).all()
            np.testing.assert_allclose(
                motion.position - previous.position, motion.velocity * (dt if dt >= 1e-6 else 0), atol=1e-9
            )
