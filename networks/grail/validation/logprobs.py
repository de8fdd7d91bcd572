"""C8: claimed log-probs against the model's own at the challenged positions (§8.8)."""

import math
import sys
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.constants import CHALLENGE_POSITIONS, LOGPROB_EPSILON
from windrow.networks.grail.validation.verdicts import CheckResult, result

CHECK = "logprobs_valid"
ROUNDING = 1e-3
"""How far above 0 rounding can lift an honest log-prob."""


def check_logprobs(
    claimed: object,
    token_count: int,
    completion_length: int,
    positions: Sequence[int],
    model: Mapping[int, float],
) -> CheckResult:
    """C8 for one rollout. measured: median importance-ratio deviation, exp(|model - claimed|) - 1.

    claimed: ``token_logprobs`` as found. positions: challenged, absolute, of `prf.open_indices`.
    model: the model's log-prob by absolute position; positions it lacks count as unresolved.
    Windrow also refuses claims no softmax makes: above zero, or not finite, anywhere.
    """
    problem = _unfit(claimed, token_count, completion_length)
    if problem is not None or not isinstance(claimed, Sequence | np.ndarray):
        return result(CHECK, network_reason=problem, threshold=LOGPROB_EPSILON)
    try:
        deviations = [_deviation(model[p], claimed[p]) for p in positions if p in model]
    except (TypeError, OverflowError) as error:
        return result(
            CHECK,
            network_reason=f"a challenged log-prob cannot be compared: {error}",
            threshold=LOGPROB_EPSILON,
        )
    if len(deviations) < CHALLENGE_POSITIONS:
        return result(
            CHECK,
            network_reason=f"only {len(deviations)} of {CHALLENGE_POSITIONS} positions have a "
            "log-prob of the model",
            threshold=LOGPROB_EPSILON,
        )
    middle = math.nan if any(map(math.isnan, deviations)) else median(deviations)
    return result(
        CHECK,
        network_reason=None
        if middle <= LOGPROB_EPSILON
        else "half of the challenged log-probs are not the model's",
        windrow_reason=None
        if _possible(claimed)
        else "a claimed log-prob is above zero or no finite number",
        measured=middle,
        threshold=LOGPROB_EPSILON,
        margin=LOGPROB_EPSILON - middle,
    )


def largest_deviation(
    claimed: Sequence[float] | NDArray[np.floating],
    positions: Sequence[int],
    model: Mapping[int, float],
) -> float:
    """The largest deviation at the challenged positions; nan where one is nan."""
    return float(np.max([_deviation(model[p], claimed[p]) for p in positions]))


def _unfit(claimed: object, token_count: int, completion_length: int) -> str | None:
    """Why claimed log-probs cannot be compared at all."""
    if completion_length < CHALLENGE_POSITIONS:
        return f"the completion has fewer than {CHALLENGE_POSITIONS} tokens"
    if not isinstance(claimed, list | np.ndarray):
        return "token_logprobs is no list"
    if len(claimed) != token_count:
        return f"{len(claimed)} log-probs for {token_count} tokens"
    return None


def _deviation(model: float, claimed: object) -> float:
    """exp(|model - claimed|) - 1. An infinite claim deviates infinitely; a finite one too far
    away overflows, which fails the whole check (§8.8)."""
    if not isinstance(claimed, int | float | np.floating):
        raise TypeError(f"{claimed!r:.40} is no number")
    return math.exp(abs(float(model) - float(claimed))) - 1.0


def _possible(claimed: Sequence[object] | NDArray[np.floating]) -> bool:
    if isinstance(claimed, np.ndarray):
        return bool((np.isfinite(claimed) & (claimed <= ROUNDING)).all())
    return all(
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -sys.float_info.max <= value <= ROUNDING
        for value in claimed
    )
