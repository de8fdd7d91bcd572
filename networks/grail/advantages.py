"""Group-relative advantages and the check of one group (grail-protocol §6.4, §11.5)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.constants import (
    ADVANTAGE_SUM_TOLERANCE,
    ADVANTAGE_TOLERANCE,
    ROLLOUTS_PER_GROUP,
)

MIN_DEVIATION: Final = 1e-8


@dataclass(frozen=True)
class GroupCheck:
    """What the group rule measured, and both verdicts (§11.5).

    advantage_sum and largest_error are nan where a claimed value is.
    network_verdict: what the network says; a nan passes every comparison there.
    windrow_verdict: the same rule, with every number required to be finite.
    """

    size: int
    advantage_sum: float
    largest_error: float
    network_verdict: bool
    windrow_verdict: bool


def group_advantages(rewards: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Rewards centred and divided by their population deviation, float64 [n] (§6.4).

    A deviation below 1e-8 counts as 1e-8. Non-finite rewards give nan.
    """
    values = [float(reward) for reward in rewards]
    if not values:
        return np.empty(0, np.float64)
    mean = _sum(values) / len(values)
    centred = [value - mean for value in values]
    deviation = math.sqrt(_sum(c * c for c in centred) / len(values))
    divisor = max(deviation, MIN_DEVIATION)
    return np.array([c / divisor for c in centred], np.float64)


def check_group(rewards: Sequence[float], advantages: Sequence[float]) -> GroupCheck:
    """Check a sampled group's claimed advantages against its claimed rewards (§11.5)."""
    total = _sum(float(a) for a in advantages)
    errors = [
        abs(float(claimed) - float(own))
        for claimed, own in zip(advantages, group_advantages(rewards), strict=False)
    ]
    whole = len(rewards) == len(advantages) == ROLLOUTS_PER_GROUP
    network = (
        whole
        and not abs(total) > ADVANTAGE_SUM_TOLERANCE
        and not any(error > ADVANTAGE_TOLERANCE for error in errors)
    )
    return GroupCheck(
        size=len(rewards),
        advantage_sum=total,
        largest_error=float(np.max(errors)) if errors else 0.0,
        network_verdict=network,
        windrow_verdict=network and math.isfinite(total) and all(map(math.isfinite, errors)),
    )


def _sum(values: Iterable[float]) -> float:
    """The plain left-to-right sum. A compensated or pairwise one differs in the last bits, which
    the division by 1e-8 brings to the surface for a group of equal rewards."""
    total = 0.0
    for value in values:
        total += value
    return total
