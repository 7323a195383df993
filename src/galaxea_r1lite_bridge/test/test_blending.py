import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.blending import BLENDINGS, Plan
from galaxea_r1lite_bridge.execution.plan import Chunk, minimum_jerk

S = 1_000_000_000
STEP = S // 15


def chunk(value, stamp=0, rows=32, slope=0.0, committed=0):
    positions = value + slope * np.arange(rows)[:, None] / 15 * np.ones(2)
    return Chunk(1, 1, stamp, STEP, ["a", "b"], positions * [1.0, -1.0], committed)


def plan(mode, *chunks, every=0.5):
    made = Plan(mode, 0.2, 0.7)
    for index, one in enumerate(chunks):
        made.add(one, round(index * every * S))
    return made


@pytest.mark.parametrize("mode", BLENDINGS)
def test_position_and_velocity_are_continuous_through_every_seam(mode):
    random = np.random.default_rng(0)
    made, times, rows = Plan(mode, 0.2, 0.7), np.arange(0, 2.4, 0.001), []
    for t in times:
        now = round(t * S)
        if now % (S // 2) == 0 or now == 620_000_000:  # the last one while a fade is under way
            made.add(Chunk(1, 1, now - S // 10, STEP, ["a"], np.cumsum(random.normal(0, 0.05, (32, 1)), axis=0)), now)
        made.prune(now)
        rows.append([value[0] for value in made.sample(now)])
    position, velocity = np.array(rows).T
    assert np.abs(np.diff(position)).max() < 0.005
    if mode != "rtc":  # there a velocity may jump, and the limiter smooths it
        assert np.abs(np.diff(velocity)).max() < 0.15
    np.testing.assert_allclose(velocity[1:-1], (position[2:] - position[:-2]) / 0.002, atol=0.08)


def test_switch_cross_fades_over_the_window():
    made = plan("switch", chunk(0.0), chunk(1.0))
    for t, expected in ((0.4, 0.0), (0.5, 0.0), (0.6, 0.5), (0.7, 1.0), (1.0, 1.0)):
        assert made.sample(round(t * S))[0][0] == pytest.approx(expected)


def test_both_sides_of_a_fade_are_time_aligned():
    """Two chunks of the same motion, from observations 0.4 s apart, are one motion."""
    made = Plan("switch", 0.2, 0.7)
    made.add(chunk(0.0, slope=0.5), 0)
    made.add(chunk(0.2, stamp=round(0.4 * S), slope=0.5), round(0.6 * S))
    for t in (0.5, 0.65, 0.7, 0.9):
        position, velocity = made.sample(round(t * S))
        assert position[0] == pytest.approx(0.5 * t, abs=1e-6)
        assert velocity[0] == pytest.approx(0.5, abs=1e-6)


def test_the_newest_chunk_weighs_most_in_an_ensemble():
    made = plan("ensemble", chunk(0.0), chunk(1.0), chunk(2.0), every=0.3)
    weights = np.exp(-0.7 * np.array([2, 1, 0]))
    assert made.sample(S)[0][0] == pytest.approx(weights @ [0, 1, 2] / weights.sum())
    assert made.sample(round(0.6 * S))[0][0] < made.sample(round(0.7 * S))[0][0]


def test_rtc_takes_a_frozen_chunk_at_once_and_fades_otherwise():
    frozen = plan("rtc", chunk(0.0), chunk(1.0, stamp=round(0.4 * S), committed=4))
    assert frozen.sample(round(0.5 * S))[0][0] == 1.0
    late = plan("rtc", chunk(0.0), chunk(1.0, stamp=round(0.2 * S), committed=4))
    assert late.sample(round(0.5 * S))[0][0] == 0.0
    assert late.sample(round(0.6 * S))[0][0] == pytest.approx(0.5)
    unfrozen = plan("rtc", chunk(0.0), chunk(1.0))
    assert unfrozen.sample(round(0.6 * S))[0][0] == pytest.approx(0.5)


@pytest.mark.parametrize("mode", BLENDINGS)
def test_a_delayed_plan_goes_on_later(mode):
    made = plan(mode, chunk(0.0, slope=0.5))
    made.delay(round(0.3 * S))
    assert made.sample(S)[0][0] == pytest.approx(0.35, abs=1e-6)
    assert made.lag_ns == 300_000_000
    assert made.end_ns == 31 * STEP + 300_000_000


@pytest.mark.parametrize("mode", BLENDINGS)
def test_few_chunks_are_kept_however_many_come(mode):
    made = Plan(mode, 0.2, 0.7)
    for index in range(500):
        made.add(chunk(0.001 * index, stamp=index * 1_000_000), index * 1_000_000)
    assert len(made._entries) <= 8
    assert np.isfinite(made.sample(500_000_000)[0]).all()


@pytest.mark.parametrize("mode", BLENDINGS)
def test_a_chunk_that_comes_when_the_one_before_is_over(mode):
    for at in (9 * STEP, 9 * STEP + 1, 2 * S):
        made = Plan(mode, 0.2, 0.7)
        made.add(chunk(0.0, rows=10), 0)
        made.add(chunk(1.0, stamp=at), at)
        assert np.isfinite(made.sample(at)).all()


def test_minimum_jerk_starts_and_ends_at_rest():
    path = minimum_jerk(np.zeros(1), np.ones(1), 100)[:, 0]
    speed = np.diff(path) * 100
    assert (path[0], path[-1]) == (0.0, 1.0)
    assert max(speed) == pytest.approx(15 / 8, rel=1e-3)
    assert speed[0] < 1e-2
    assert speed[-1] < 1e-2
