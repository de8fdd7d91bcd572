"""Exact bounds of a rate from counts."""

import math

import numpy as np

CONFIDENCE = 0.95


def upper_bound(successes: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson upper bound of a rate: of 0 in 3,072 it is 0.00098."""
    if successes >= trials:
        return 1.0
    low, high = successes / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(successes, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def lower_bound(successes: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson lower bound of a rate."""
    return 1.0 - upper_bound(trials - successes, trials, confidence)


def _at_most(successes: int, trials: int, rate: float) -> float:
    """Probability of at most so many successes."""
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    k = np.arange(successes + 1)
    logs = np.array(
        [math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) for i in k]
    )
    return float(np.exp(logs + k * math.log(rate) + (trials - k) * math.log1p(-rate)).sum())
