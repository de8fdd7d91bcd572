"""The checks of one rollout that compare its claims with what the model says (§8.4, §8.8).

The network's verdict comes from 32 challenged positions. Windrow's also asks that the sketches are
made for this window, and that the whole completion agrees as an honest prover's does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windrow.engine.validation.claims import Claim
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.proof_scores import (
    LOGPROB_SCORES,
    SKETCH_SCORES,
    Calibration,
    Expected,
    proof_scores,
)
from windrow.networks.grail.prf import MalformedRandomness, normalise_hex, open_indices
from windrow.networks.grail.validation.logprobs import check_logprobs
from windrow.networks.grail.validation.sketches import check_sketches
from windrow.networks.grail.validation.verdicts import CheckResult, result


@dataclass(frozen=True)
class ModelSays:
    """What the model says of one rollout of L tokens, C of them its completion.

    own_sketches: int32 [L] under the commit's own randomness, canonical_sketches under the
    window's; None where that is not known or no randomness. margins: float32 [L]. logprobs,
    totals, probabilities, draw_logprobs: float32 [C], with the numbers after them as of
    `RolloutMeasure`.
    """

    own_sketches: NDArray[np.int32] | None
    canonical_sketches: NDArray[np.int32] | None
    margins: NDArray[np.float32]
    logprobs: NDArray[np.float32]
    totals: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    eos_probability: float
    better_count: int
    better_mass: float
    draw_logprobs: NDArray[np.float32] | None


@dataclass(frozen=True)
class Unmeasured:
    """Why the model could not be asked about a rollout."""

    reason: str


@dataclass(frozen=True)
class Agreement:
    """Windrow's own check of a proof, over all tokens together."""

    sketches: CheckResult
    logprobs: CheckResult

    @classmethod
    def of(cls, claim: Claim, model: ModelSays, calibration: Calibration) -> "Agreement":
        """Claims that are absent or of another length are as far off as can be."""
        count, completion = len(model.margins), len(model.logprobs)
        own = model.own_sketches if model.canonical_sketches is None else model.canonical_sketches
        sketches, logprobs = claim.token_sketches, claim.completion_logprobs
        scores = proof_scores(
            np.full(count, -1, np.int64) if sketches is None or own is None else sketches,
            np.full(completion, np.nan) if logprobs is None else logprobs,
            Expected(
                np.zeros(count, np.int32) if own is None else own,
                model.margins,
                model.logprobs,
                model.totals,
            ),
        )
        excess = calibration.excess(scores)

        def verdict(check: str, names: tuple[str, ...], what: str) -> CheckResult:
            worst = max(names, key=excess.__getitem__)
            measured, limit = getattr(scores, worst), getattr(calibration, worst)
            reason = f"the {what} are further from the model's than an honest prover's"
            return result(
                check,
                network_reason=None,
                windrow_reason=None if excess[worst] <= 1.0 else f"{reason}: {worst}",
                measured=measured,
                threshold=limit,
                margin=limit - measured,
            )

        return cls(
            verdict("sketches_agree", SKETCH_SCORES, "sketches"),
            verdict("logprobs_agree", LOGPROB_SCORES, "log-probs"),
        )


def check_proof(
    claim: Claim,
    model: ModelSays | Unmeasured,
    agreement: Agreement | None,
    context: ValidationContext,
) -> CheckResult:
    """C4 (§8.4). measured, threshold: at the challenged position with the least margin."""
    faults, strict = list(claim.proof_faults), list[str]()
    compared: CheckResult | None = None
    loaded = context.checkpoint_window
    if None not in (loaded, claim.checkpoint_window) and claim.checkpoint_window != loaded:
        faults.append("made with another checkpoint than the one loaded")
    if isinstance(model, Unmeasured):
        faults.append(model.reason)
    elif claim.token_sketches is None:
        faults.append("not one sketch for each token")
    elif model.own_sketches is None:
        faults.append("the commit names no randomness to sketch with")
    else:
        positions = np.array(challenged(claim, context))
        own = model.own_sketches[positions]
        compared = check_sketches(own, claim.token_sketches[positions], positions)
        (strict if compared.network_verdict else faults).append(compared.reason)
    if not canonical_randomness(claim.randomness, context.miner_randomness):
        strict.append("the sketches are made with other randomness than the window's")
    if agreement is not None:
        strict.append(agreement.sketches.reason)
    return result(
        "proof_valid",
        network_reason=_joined(faults),
        windrow_reason=_joined(strict),
        measured=None if compared is None else compared.measured,
        threshold=None if compared is None else compared.threshold,
        margin=None if compared is None else compared.margin,
    )


def check_claimed_logprobs(
    claim: Claim,
    model: ModelSays | Unmeasured,
    agreement: Agreement | None,
    context: ValidationContext,
) -> CheckResult:
    """C8 (§8.8). measured: the median deviation of the challenged positions."""
    if isinstance(model, Unmeasured):
        return result("logprobs_valid", network_reason=model.reason)
    positions = challenged(claim, context)
    found = check_logprobs(
        claim.logprobs,
        len(claim.tokens),
        claim.completion_length,
        positions,
        {p: float(model.logprobs[p - claim.prompt_length]) for p in positions},
    )
    if agreement is None or not found.windrow_verdict:
        return found
    return result(
        found.check,
        network_reason=None,
        windrow_reason=agreement.logprobs.reason or None,
        measured=found.measured,
        threshold=found.threshold,
        margin=found.margin,
    )


def challenged(claim: Claim, context: ValidationContext) -> list[int]:
    """The opened positions of a rollout, absolute (grail-protocol §3.4)."""
    return open_indices(
        claim.tokens, claim.prompt_length, claim.completion_length, context.validator_randomness
    )


def canonical_randomness(claimed: str | None, window: str | None) -> bool:
    """Whether a commit names the window's randomness; true where that is not known."""
    if window is None:
        return True
    try:
        return claimed is not None and normalise_hex(claimed) == normalise_hex(window)
    except MalformedRandomness:
        return False


def _joined(reasons: list[str]) -> str | None:
    return "; ".join(filter(None, reasons)) or None
