"""What a rollout fails at whatever a model would say of it.

Each check that asks the model is made against the answer that favours the miner most. Only a
failure says something then; a check that passes has not been made.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from windrow.engine.validation.claims import Claim
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.proof_verdicts import canonical_randomness, challenged
from windrow.networks.grail.validation.logprobs import check_logprobs
from windrow.networks.grail.validation.termination import check_termination
from windrow.networks.grail.validation.verdicts import CheckResult, result

CERTAIN: Final = 1.0


def _proof(claim: Claim, context: ValidationContext) -> CheckResult:
    """C4 (§8.4): version, layer, lengths, signature and randomness, but no sketch."""
    canonical = canonical_randomness(claim.randomness, context.miner_randomness)
    return result(
        "proof_valid",
        network_reason="; ".join(claim.proof_faults) or None,
        windrow_reason=None
        if canonical
        else "the sketches are made with other randomness than the window's",
    )


def _termination(claim: Claim, context: ValidationContext) -> CheckResult:
    """C5 (§8.5): length and last token."""
    return check_termination(
        claim.tokens,
        claim.completion_length,
        context.policy.max_new_tokens,
        context.eos_token_id,
        CERTAIN,
    )


def _logprobs(claim: Claim, context: ValidationContext) -> CheckResult:
    """C8 (§8.8): one possible log-prob for each token."""
    claimed = np.zeros(0) if claim.logprobs is None else claim.logprobs
    comparable = claim.whole and len(claimed) == len(claim.tokens)
    positions = challenged(claim, context) if comparable else []
    same = {p: float(claimed[p]) for p in positions}
    return check_logprobs(
        claim.logprobs, len(claim.tokens), claim.completion_length, positions, same
    )


MODELLESS: Final[Mapping[str, Callable[[Claim, ValidationContext], CheckResult]]] = (
    MappingProxyType(
        {"proof_valid": _proof, "termination_valid": _termination, "logprobs_valid": _logprobs}
    )
)
"""By check, in the network's order."""
