import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.limits import Limiter

LIMITER = Limiter(np.array([-1.0, 0.0]), np.array([1.0, 100.0]), np.array([0.5, 200.0]))
vectors = st.tuples(st.floats(-5, 5), st.floats(-500, 500)).map(np.array)


def test_a_request_within_the_limits_passes_unchanged():
    target, limited = LIMITER.apply(np.array([0.0, 50.0]), np.array([0.004, 51.0]), 0.01)
    np.testing.assert_array_equal(target, [0.004, 51.0])
    assert not limited.any()


def test_each_limit_is_reported_for_its_joint():
    target, limited = LIMITER.apply(np.array([0.0, 50.0]), np.array([1.0, 50.0]), 0.01)
    np.testing.assert_allclose(target, [0.005, 50.0])
    assert limited.tolist() == [True, False]
    target, limited = LIMITER.apply(np.array([0.0, 99.0]), np.array([0.0, 120.0]), 0.01)
    np.testing.assert_allclose(target, [0.0, 100.0])
    assert limited.tolist() == [False, True]


@given(vectors, vectors, st.floats(0, 1))
def test_speed_is_never_exceeded_and_position_never_leaves_the_box(previous, requested, dt):
    target, _ = LIMITER.apply(previous, requested, dt)
    assert (np.abs(target - previous) <= LIMITER.velocity * dt + 1e-9).all()
    inside = (previous >= LIMITER.lower) & (previous <= LIMITER.upper)
    assert ((target >= LIMITER.lower) & (target <= LIMITER.upper))[inside].all()
    # From outside the box it moves towards it, or stays.
    distance = lambda x: np.maximum(0, np.maximum(LIMITER.lower - x, x - LIMITER.upper))  # noqa: E731
    assert (distance(target) <= distance(previous) + 1e-9).all()
