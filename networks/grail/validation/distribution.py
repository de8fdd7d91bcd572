"""C9: whether a completion looks sampled, from the probabilities of its tokens (§8.9)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.validation.verdicts import CheckResult, result

CHECK: Final = "token_distribution_valid"
MIN_STEPS: Final = 30
INITIAL_STEPS: Final = 50
LOW: Final = 0.10
HIGH: Final = 0.90
MAX_LOW_MEDIAN: Final = 0.30
MAX_LOW_QUANTILE: Final = 0.025
MAX_LOW_MINIMUM: Final = 1e-5
QUANTILE: Final = 0.10

Probabilities = Sequence[float] | NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Distribution:
    """Figures of chosen-token probabilities. Only median, q10 and minimum decide (§8.9).

    q10: 10 % quantile, linear interpolation. low, middle, high: shares at most 0.10, between,
    at least 0.90. bimodality: the bimodality coefficient, 0 where all are equal.
    """

    mean: float
    median: float
    q10: float
    minimum: float
    low: float
    middle: float
    high: float
    bimodality: float

    @classmethod
    def of(cls, probabilities: Probabilities) -> "Distribution":
        """probabilities: [n], n >= 1."""
        p = np.asarray(probabilities, np.float64)
        low, high = float((p <= LOW).mean()), float((p >= HIGH).mean())
        return cls(
            mean=float(p.mean()),
            median=float(np.median(p)),
            q10=float(np.quantile(p, QUANTILE)),
            minimum=float(p.min()),
            low=low,
            middle=1.0 - low - high,
            high=high,
            bimodality=_bimodality(p),
        )


@dataclass(frozen=True)
class Suspicions:
    """Which of the four limits the probabilities of a completion break (§8.9)."""

    median_low: bool
    min_low: bool
    q10_low: bool
    q10_low_initial: bool

    @classmethod
    def of(cls, whole: Distribution, initial: Distribution) -> "Suspicions":
        """whole, initial: over all steps and over the first 50."""
        return cls(
            median_low=whole.median <= MAX_LOW_MEDIAN,
            min_low=whole.minimum <= MAX_LOW_MINIMUM,
            q10_low=whole.q10 <= MAX_LOW_QUANTILE,
            q10_low_initial=initial.q10 <= MAX_LOW_QUANTILE,
        )


def check_distribution(probabilities: Probabilities | None) -> CheckResult:
    """C9 for one rollout.

    probabilities: of every completion token under the checkpoint's repetition penalty and
    temperature, [n]; None where they cannot be had (`kernels.distribution`). measured, threshold:
    the limit that is broken, or the median. Windrow also refuses what is no probability.
    """
    if probabilities is None or len(probabilities) < MIN_STEPS:
        return result(
            CHECK,
            network_reason="insufficient",
            measured=0 if probabilities is None else len(probabilities),
            threshold=MIN_STEPS,
        )
    p = np.asarray(probabilities, np.float64)
    whole, initial = Distribution.of(p), Distribution.of(p[:INITIAL_STEPS])
    suspicions = Suspicions.of(whole, initial)
    broken = [name for name, holds in vars(suspicions).items() if holds]
    measured, threshold = {
        "median_low": (whole.median, MAX_LOW_MEDIAN),
        "min_low": (whole.minimum, MAX_LOW_MINIMUM),
        "q10_low": (whole.q10, MAX_LOW_QUANTILE),
        "q10_low_initial": (initial.q10, MAX_LOW_QUANTILE),
    }[broken[0] if broken else "median_low"]
    possible = bool(((p >= 0) & (p <= 1)).all())
    return result(
        CHECK,
        network_reason="not as the model samples: " + ", ".join(broken) if broken else None,
        windrow_reason=None if possible else "a probability is nan or outside [0, 1]",
        measured=measured,
        threshold=threshold,
        margin=measured - threshold,
    )


def _bimodality(p: NDArray[np.float64]) -> float:
    """(skewness² + 1) / kurtosis of the population, kept from dividing by zero."""
    centred = p - p.mean()
    variance = float((centred**2).mean())
    if not variance > 1e-12:
        return math.nan if math.isnan(variance) else 0.0
    skewness = float((centred**3).mean()) / (math.sqrt(variance) ** 3 + 1e-12)
    kurtosis = float((centred**4).mean()) / (variance * variance + 1e-12)
    return (skewness * skewness + 1.0) / (kurtosis + 1e-12)
