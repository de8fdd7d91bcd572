"""The check of one sampled group of rollouts (grail-validation §10)."""

from collections.abc import Sequence

from windrow.networks.grail.advantages import check_group
from windrow.networks.grail.constants import (
    ADVANTAGE_SUM_TOLERANCE,
    ADVANTAGE_TOLERANCE,
    ROLLOUTS_PER_GROUP,
)
from windrow.networks.grail.validation.verdicts import CheckResult, result

CHECK = "group_advantages"


def check_rollout_group(
    rewards: Sequence[float], advantages: Sequence[float], seeds: Sequence[int | None]
) -> CheckResult:
    """Size, advantages and environment seed of a group, as its rows claim them (§10).

    seeds: ``env.seed`` of every row, None where absent. A violation fails the file without a
    reason recorded. Windrow also refuses numbers that are not finite.
    """
    group = check_group(rewards, advantages)
    seeds_differ = len(set(seeds)) > 1
    if abs(group.advantage_sum) > ADVANTAGE_SUM_TOLERANCE:
        measured, threshold = abs(group.advantage_sum), ADVANTAGE_SUM_TOLERANCE
    else:
        measured, threshold = group.largest_error, ADVANTAGE_TOLERANCE
    reason = None
    if group.size != ROLLOUTS_PER_GROUP:
        reason = f"{group.size} rollouts instead of {ROLLOUTS_PER_GROUP}"
    elif not group.network_verdict:
        reason = "the claimed advantages are not those of the claimed rewards"
    elif seeds_differ:
        reason = "the rollouts name different environment seeds"
    return result(
        CHECK,
        network_reason=reason,
        windrow_reason=None
        if group.windrow_verdict
        else "an advantage or reward is no finite number",
        measured=measured,
        threshold=threshold,
        margin=threshold - measured,
    )
