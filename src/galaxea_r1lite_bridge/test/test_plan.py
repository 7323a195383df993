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
        np.testing.assert_array_equal(plan.sample(plan.stamp_ns + index * STEP), plan.positions[index])
    assert plan.end_ns == plan.stamp_ns + 2 * STEP


def test_between_steps_it_is_linear_and_outside_it_holds():
    plan = chunk([[0, 10], [1, 20]])
    np.testing.assert_allclose(plan.sample(plan.stamp_ns + STEP // 4), [0.25, 12.5], atol=1e-6)
    np.testing.assert_array_equal(plan.sample(0), [0, 10])
    np.testing.assert_array_equal(plan.sample(plan.end_ns + 10 * STEP), [1, 20])


@given(
    st.lists(st.lists(st.floats(-3, 3), min_size=2, max_size=2), min_size=1, max_size=32),
    st.integers(-10 * STEP, 40 * STEP),
)
def test_samples_stay_within_the_steps_and_are_continuous(rows, offset):
    plan = chunk(rows)
    now = plan.stamp_ns + offset
    sample = plan.sample(now)
    assert (sample >= plan.positions.min(axis=0) - 1e-12).all()
    assert (sample <= plan.positions.max(axis=0) + 1e-12).all()
    steepest = np.abs(np.diff(plan.positions, axis=0)).max(initial=0.0)
    assert np.abs(plan.sample(now + STEP // 100) - sample).max() <= steepest / 100 + 1e-9
