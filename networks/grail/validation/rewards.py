"""C7 and C6: the claimed reward against the evaluated one, and the claimed success (§8.6, §8.7)."""

import math

from windrow.networks.grail.constants import REWARD_ABS_TOLERANCE, REWARD_REL_TOLERANCE
from windrow.networks.grail.validation.verdicts import CheckResult, result


def check_reward(claimed: object, evaluated: object) -> CheckResult:
    """C7 for one rollout; text is parsed, anything that is no number fails. measured: distance.

    Windrow also refuses infinities and text, which the network compares.
    """
    mine, own = _number(claimed), _number(evaluated)
    if mine is None or own is None:
        return result("reward_valid", network_reason="a reward is missing or no number")
    apart = abs(mine - own)
    allowed = max(REWARD_REL_TOLERANCE * max(abs(mine), abs(own)), REWARD_ABS_TOLERANCE)
    close = math.isclose(mine, own, rel_tol=REWARD_REL_TOLERANCE, abs_tol=REWARD_ABS_TOLERANCE)
    sound = math.isfinite(mine) and isinstance(claimed, int | float)
    return result(
        "reward_valid",
        network_reason=None if close else "the claimed reward is not the evaluated one",
        windrow_reason=None if sound else "the claimed reward is no finite number",
        measured=apart,
        threshold=allowed,
        margin=allowed - apart,
    )


def check_evaluation(*, evaluated: bool) -> CheckResult:
    """C6 for one rollout: only an evaluation that raised fails (§8.6)."""
    return result(
        "env_eval_valid",
        network_reason=None if evaluated else "the environment could not evaluate the completion",
    )


def check_success(claimed: object, *, evaluated: bool) -> CheckResult:
    """Whether the claimed success is the evaluated one, which the network never asks (§8.6)."""
    return result(
        "success_matches",
        network_reason=None,
        windrow_reason=None
        if claimed is evaluated
        else "the claimed success is not the evaluated one",
    )


def _number(value: object) -> float | None:
    if not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
