import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.plan import Chunk

STEP = 66_666_667


def chunk(rows):
    positions = np.array(rows, float)
    return Chunk(1, 1, 1_000_000_000, STEP, [f"j{i}" for i in range(positions.shape[1])], positions)


def test_a_step_is_reached_at_its_own_time():
    plan = chunk([[0, 10], [1, 20], [3, 0]])
    for index in range(3):
        np.testing.assert_allclose(plan.sample(plan.stamp_ns + index * STEP)[0], plan.positions[index])
    assert plan.end_ns == plan.stamp_ns + 2 * STEP


def test_a_ramp_has_its_speed_and_outside_it_holds_at_rest():
    plan = chunk([[0, 10], [1, 20], [2, 30], [3, 40]])
    position, velocity = plan.sample(plan.stamp_ns + STEP + STEP // 4)
    np.testing.assert_allclose(position, [1.25, 22.5], atol=1e-6)
    np.testing.assert_allclose(velocity, [15, 150], rtol=1e-6)
    for now, edge in ((0, [0, 10]), (plan.end_ns + 10 * STEP, [3, 40])):
        position, velocity = plan.sample(now)
        np.testing.assert_array_equal(position, edge)
        np.testing.assert_array_equal(velocity, [0, 0])


@given(
    st.lists(st.lists(st.floats(-3, 3), min_size=2, max_size=2), min_size=2, max_size=32),
    st.floats(0.02, 30.0),
)
def test_position_and_velocity_are_continuous(rows, place):
    plan = chunk(rows)
    spread = np.ptp(plan.positions, axis=0).max()
    now, tick = plan.stamp_ns + round(place * STEP), STEP // 1000
    (before, slow), (after, fast) = plan.sample(now - tick), plan.sample(now + tick)
    assert np.abs(after - before).max() <= 0.01 * spread + 1e-9
    if now + tick < plan.end_ns:  # at its end the plan has come to rest; up to there the speed changes little in a tick
        assert np.abs(fast - slow).max() <= 0.05 * spread * 15 + 1e-6
        np.testing.assert_allclose(
            (after - before) / (2 * tick / 1e9), (fast + slow) / 2, atol=0.02 * spread * 15 + 1e-5
        )
