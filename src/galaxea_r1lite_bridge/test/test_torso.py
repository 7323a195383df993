import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.torso import TorsoEstimate

TICK = 10_000_000


def feed(estimate, rows, begin=0):
    for number, row in enumerate(rows):
        estimate.see((begin + number) * TICK, np.atleast_1d(row))
    return estimate


def test_a_torso_that_stands_still_without_noise_is_known():
    estimate = feed(TorsoEstimate(1), [0.3] * 50)
    assert (estimate.position, estimate.uncertainty) == (0.3, 0.0)
    assert feed(estimate, [0.31] * 30, 50).position == 0.31


@pytest.mark.parametrize("noise", ["uniform", "normal"])
def test_it_is_as_uncertain_as_it_says_and_seldom_changes(noise):
    random, changes, off, uncertain = np.random.default_rng(0), 0, [], []
    rows = random.uniform(-8e-3, 8e-3, 5000) if noise == "uniform" else random.normal(0, 4e-3, 5000)
    estimate, before = TorsoEstimate(1), None
    for number, row in enumerate(rows):
        estimate.see(number * TICK, np.array([row]))
        if number > 20:
            changes += before is not None and estimate.position[0] != before
            off.append(abs(estimate.position[0]))
            uncertain.append(estimate.uncertainty[0])
        before = estimate.position[0]
    assert (np.array(off) < uncertain).all()
    assert np.median(uncertain) < 1.5 * np.abs(rows).max()
    assert changes < 0.03 * len(rows)


def test_one_that_moves_is_within_its_uncertainty():
    estimate = TorsoEstimate(1)
    for number in range(200):
        true = 0.15 * 0.01 * number
        estimate.see(number * TICK, np.array([true]))
        if number > 5:
            assert abs(estimate.position[0] - true) <= estimate.uncertainty[0] + 1e-9


def test_one_that_was_commanded_is_measured_anew():
    estimate = feed(TorsoEstimate(1), np.linspace(0, 1, 20))
    assert estimate.uncertainty > 0.3
    estimate.reset()
    assert not estimate.known
    assert estimate.uncertainty == 0
    feed(estimate, [2.0], 20)
    assert (estimate.position, estimate.uncertainty) == (2.0, 0.0)
