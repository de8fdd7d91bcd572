"""C5: a completion ends with EOS the model would have chosen, or at the length limit (§8.5)."""

import math

import numpy as np

from windrow.networks.grail.constants import MAX_COMPLETION_TOKENS, MIN_EOS_PROBABILITY
from windrow.networks.grail.tokens import Tokens
from windrow.networks.grail.validation.verdicts import CheckResult, result

CHECK = "termination_valid"


def completion_limit(max_tokens: object) -> int:
    """Greatest completion length, from ``generation_params.max_tokens`` (§8.5).

    Text is parsed; whatever is no positive integer means the protocol's cap, as does more.
    """
    if not isinstance(max_tokens, int | float | str):
        return MAX_COMPLETION_TOKENS
    try:
        limit = int(max_tokens)
    except (ValueError, OverflowError):
        return MAX_COMPLETION_TOKENS
    return min(limit, MAX_COMPLETION_TOKENS) if limit > 0 else MAX_COMPLETION_TOKENS


def check_termination(
    tokens: Tokens,
    completion_length: object,
    limit: int,
    eos_token_id: int | None,
    eos_probability: float | None,
) -> CheckResult:
    """C5 for one rollout.

    tokens: prompt and completion. completion_length: as claimed. limit: of `completion_limit`.
    eos_probability: softmax of the logits at the second-to-last position in the dtype they are
    kept in, None where there are none (`kernels.distribution.eos_probability`).
    Windrow also refuses a completion that goes on after EOS, where no generator does.
    """
    if len(tokens) == 0:
        return result(CHECK, network_reason="there are no tokens")
    if isinstance(completion_length, int) and completion_length > limit:
        return result(
            CHECK,
            network_reason="the completion is longer than the checkpoint allows",
            measured=completion_length,
            threshold=limit,
            margin=limit - completion_length,
        )
    early = _goes_on_after_eos(tokens, completion_length, eos_token_id)
    windrow_reason = "the completion goes on after EOS" if early else None
    if completion_length == limit:
        # The network does not look at the last token, nor whether the length is an integer.
        whole = isinstance(completion_length, int) and not isinstance(completion_length, bool)
        return result(
            CHECK,
            network_reason=None,
            windrow_reason=windrow_reason if whole else "completion_length is no integer",
            measured=limit,
            threshold=limit,
            margin=0.0,
        )
    if eos_token_id is None or tokens[-1] != eos_token_id:
        return result(
            CHECK, network_reason="a completion below the greatest length does not end with EOS"
        )
    if eos_probability is None or math.isnan(eos_probability):
        return result(
            CHECK,
            network_reason="the model gives no probability of EOS",
            threshold=MIN_EOS_PROBABILITY,
        )
    return result(
        CHECK,
        network_reason=None
        if eos_probability >= MIN_EOS_PROBABILITY
        else "the model would hardly have ended here",
        windrow_reason=windrow_reason,
        measured=eos_probability,
        threshold=MIN_EOS_PROBABILITY,
        margin=eos_probability - MIN_EOS_PROBABILITY,
    )


def _goes_on_after_eos(tokens: Tokens, length: object, eos_token_id: int | None) -> bool:
    """Whether EOS stands in the completion before its last token. Prompts may hold EOS."""
    if eos_token_id is None or not isinstance(length, int) or not 1 <= length <= len(tokens):
        return False
    body = np.asarray(tokens[len(tokens) - length : -1])
    return bool((body == eos_token_id).any())
