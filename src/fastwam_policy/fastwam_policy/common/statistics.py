"""Figures of repeated trials: intervals and quartiles, and whether two success rates differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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


def unpaired_p(first: int, second: int, trials: int) -> float:
    """Barnard's exact test, two-sided, of equal rates, given the successes of two times `trials` trials."""
    return float(barnard_exact([[first, second], [trials - first, trials - second]]).pvalue)
