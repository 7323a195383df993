"""Figures of repeated trials: intervals and quartiles, and whether two success rates differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import barnard_exact, binomtest


def success_interval(successes: int, trials: int) -> list[float]:
    """Wilson's 95 % interval of a success rate, [low, high]."""
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return [float(interval.low), float(interval.high)]


def quartiles(values: Sequence[float]) -> list[float] | None:
    """First quartile, median and third quartile, None without values."""
    return [float(value) for value in np.quantile(values, [0.25, 0.5, 0.75])] if values else None


def paired_p(first_only: int, second_only: int) -> float:
    """Exact McNemar test, two-sided, of equal rates on the same scenes, given how often one of two succeeded alone."""
    return float(binomtest(first_only, first_only + second_only).pvalue) if first_only + second_only else 1.0


def difference_interval(
    one: NDArray[np.bool_], other: NDArray[np.bool_], draws: int = 10_000, seed: int = 0
) -> list[float]:
    """95 % interval, [low, high], of the difference of two success rates, each of several trainings on the same trials.

    A bootstrap on both levels (percentiles): trainings, of each of the two by itself, and trials, the same for both.

    Args:
        one: which trials succeeded, [trainings, trials].
        other: the same of what it is compared with; as many trials.
        draws: of the bootstrap.
        seed: of the draws.
    """
    random, trials = np.random.default_rng(seed), one.shape[1]
    drawn = random.multinomial(trials, np.full(trials, 1 / trials), draws) / trials  # weight of each trial [N, trials]

    def rates(success: NDArray[np.bool_]) -> NDArray[np.float64]:
        count = len(success)
        weights = random.multinomial(count, np.full(count, 1 / count), draws) / count
        return np.asarray(np.einsum("nt,nk,kt->n", drawn, weights, success.astype(float), optimize=True))

    return [float(value) for value in np.quantile(rates(one) - rates(other), [0.025, 0.975])]


def unpaired_p(first: int, second: int, trials: int) -> float:
    """Barnard's exact test, two-sided, of equal rates, given the successes of two times `trials` trials."""
    return float(barnard_exact([[first, second], [trials - first, trials - second]]).pvalue)
