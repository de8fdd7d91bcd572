"""Every check of one rollout (grail-validation §8), none of them stopping the next."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow.engine.validation.claims import Claim
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.modelless_verdicts import MODELLESS
from windrow.engine.validation.proof_scores import Calibration
from windrow.engine.validation.proof_verdicts import (
    Agreement,
    ModelSays,
    Unmeasured,
    check_claimed_logprobs,
    check_proof,
)
from windrow.environments.evaluation import Evaluation
from windrow.networks.grail.validation.distribution import check_distribution
from windrow.networks.grail.validation.drawing import check_nucleus
from windrow.networks.grail.validation.outcome import Admission
from windrow.networks.grail.validation.rewards import (
    check_evaluation,
    check_reward,
    check_success,
)
from windrow.networks.grail.validation.schema import check_tokens
from windrow.networks.grail.validation.termination import check_termination
from windrow.networks.grail.validation.verdicts import CheckResult, result, stopped

_log = logging.getLogger(__name__)

PROMPT_CHECKS: Final = ("env_prompt_valid",)
EVALUATION_CHECKS: Final = ("env_eval_valid", "reward_valid")
MODEL_CHECKS: Final = (
    "proof_valid",
    "termination_valid",
    "logprobs_valid",
    "token_distribution_valid",
)


@dataclass(frozen=True)
class Refused:
    """Why an environment gives no prompt or evaluation for what a miner sent (§8.3, §8.6)."""

    reason: str


@dataclass(frozen=True)
class BudgetSpent:
    """A rollout that was not evaluated because its file's evaluations took `seconds` already."""

    seconds: float

    @property
    def reason(self) -> str:
        return f"evaluation budget used up: {self.seconds:g} s a file, and rows before took it all"


@dataclass(frozen=True)
class Findings:
    """What was found out about a rollout besides what it claims; None is what was not looked for.

    prompt: canonical ids of its group's task.
    """

    prompt: NDArray[np.int32] | Refused | None = None
    evaluation: Evaluation | Refused | BudgetSpent | None = None
    model: ModelSays | Unmeasured | None = None


def admission(claim: Claim, context: ValidationContext) -> Admission:
    """Whether the network's checks begin at all on this row (§8.0)."""
    faults = admission_faults(claim, context)
    if faults:
        return next(iter(faults))
    return Admission.NO_GROUP if claim.place.rollout_group is None else Admission.ADMITTED


def admission_faults(claim: Claim, context: ValidationContext) -> dict[Admission, str]:
    """Every reason to stop at this row, in the network's order (§8.0.1-3)."""
    loaded = context.checkpoint_window
    identity = (claim.window_start, claim.block_hash)
    stops = {
        Admission.WRONG_CHECKPOINT: (
            loaded is not None and claim.checkpoint_window != loaded,
            "not made with the checkpoint that validators use in this window",
        ),
        Admission.WRONG_IDENTITY: (
            identity != (context.window, context.block_hash),
            "the row names another window or block hash",
        ),
        Admission.BAD_SIGNATURE: (
            not claim.row_signed,
            "the row's signature does not verify for its challenge and hotkey",
        ),
    }
    return {stop: reason for stop, (broken, reason) in stops.items() if broken}


_ADMISSION_CHECKS: Final = {
    "checkpoint_window": Admission.WRONG_CHECKPOINT,
    "row_identity": Admission.WRONG_IDENTITY,
    "outer_signature": Admission.BAD_SIGNATURE,
}


def check_rollout(
    claim: Claim, findings: Findings, context: ValidationContext, calibration: Calibration | None
) -> list[CheckResult]:
    """Every check that can be made with what was found, in the network's order.

    calibration: limits of Windrow's own proof check; None without a model, where its checks have
    a result only if they fail all the same. A check that raises is a failed one, as on the network
    (§8.0.7), with the error in its reason.
    """
    prompt, evaluation, model = findings.prompt, findings.evaluation, findings.model
    faults = admission_faults(claim, context)
    results = [
        result(name, network_reason=faults.get(stop)) for name, stop in _ADMISSION_CHECKS.items()
    ]

    def check(name: str, run: Callable[[], CheckResult]) -> None:
        results.append(_guarded(name, run))

    agreement: Agreement | None = None
    if isinstance(model, ModelSays) and calibration is not None:
        agreement = Agreement.of(claim, model, calibration)
    check("schema_valid", lambda: _check_schema(claim))
    check("tokens_valid", lambda: _check_tokens(claim, context))
    if prompt is not None:
        check("env_prompt_valid", lambda: _check_prompt(claim, prompt))
    if model is not None:
        check("proof_valid", lambda: check_proof(claim, model, agreement, context))
        check("termination_valid", lambda: _check_termination(claim, model, context))
    if evaluation is not None:
        check("env_eval_valid", lambda: _check_evaluation(evaluation))
        check("reward_valid", lambda: _check_reward(claim, evaluation))
    if model is not None:
        check("logprobs_valid", lambda: check_claimed_logprobs(claim, model, agreement, context))
        check("token_distribution_valid", lambda: _check_distribution(model))
    if isinstance(evaluation, Evaluation) and evaluation.limit is None:
        check("success_matches", lambda: check_success(claim.success, evaluated=evaluation.success))
    if model is None:
        unaided = [_guarded(name, partial(run, claim, context)) for name, run in MODELLESS.items()]
        results += [found for found in unaided if not found.windrow_verdict]
    if agreement is not None:
        results += [agreement.sketches, agreement.logprobs]
    if isinstance(model, ModelSays):
        results.append(check_nucleus(model.better_count, model.better_mass, context.policy))
    return results


def _guarded(name: str, run: Callable[[], CheckResult]) -> CheckResult:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - what a hostile row brings about is its verdict
        _log.warning("Check %s raised on a rollout", name, exc_info=True)
        return result(
            name, network_reason=f"the check raised {type(error).__name__}: {error!s:.200}"
        )


def _check_schema(claim: Claim) -> CheckResult:
    """C1 (§8.1), as found on the columns; Windrow also refuses numbers that are not finite."""
    numbers = [claim.reward, claim.advantage]
    finite = np.isfinite(numbers).all() and (
        claim.logprobs is None or np.isfinite(claim.logprobs).all()
    )
    return result(
        "schema_valid",
        network_reason="; ".join(claim.schema_faults) or None,
        windrow_reason=None if finite else "a reward, advantage or log-prob is no finite number",
    )


def _check_tokens(claim: Claim, context: ValidationContext) -> CheckResult:
    """C2 (§8.2); a number that is written as a fraction is no token, whatever its value."""
    if not claim.whole_tokens:
        return result("tokens_valid", network_reason="a token is no integer")
    return check_tokens(claim.tokens, context.vocabulary, context.max_context)


def _check_prompt(claim: Claim, prompt: NDArray[np.int32] | Refused) -> CheckResult:
    """C3 (§8.3)."""
    check = "env_prompt_valid"
    if isinstance(prompt, Refused):
        return result(check, network_reason=prompt.reason)
    reason = None
    if claim.prompt_length != len(prompt):
        reason = "prompt_length is not the canonical prompt's"
    elif claim.prompt_length + claim.completion_length != len(claim.tokens):
        reason = "prompt_length and completion_length do not add up to the tokens"
    elif not np.array_equal(claim.tokens[: len(prompt)], prompt):
        reason = "the prompt differs from the canonical prompt"
    return result(check, network_reason=reason, measured=claim.prompt_length, threshold=len(prompt))


def _check_termination(
    claim: Claim, model: ModelSays | Unmeasured, context: ValidationContext
) -> CheckResult:
    return check_termination(
        claim.tokens,
        claim.completion_length,
        context.policy.max_new_tokens,
        context.eos_token_id,
        model.eos_probability if isinstance(model, ModelSays) else None,
    )


def _check_evaluation(evaluation: Evaluation | Refused | BudgetSpent) -> CheckResult:
    """C6 (§8.6)."""
    check = "env_eval_valid"
    if isinstance(evaluation, BudgetSpent):
        return stopped(check, evaluation.reason)
    if isinstance(evaluation, Refused):
        return result(check, network_reason=evaluation.reason)
    return check_evaluation(evaluated=True)


def _check_reward(claim: Claim, evaluation: Evaluation | Refused | BudgetSpent) -> CheckResult:
    """C7 (§8.7)."""
    if isinstance(evaluation, BudgetSpent):
        return stopped("reward_valid", evaluation.reason)
    if isinstance(evaluation, Evaluation) and evaluation.limit:
        return stopped("reward_valid", evaluation.limit)
    own = evaluation.reward if isinstance(evaluation, Evaluation) else None
    return check_reward(claim.reward, own)


def _check_distribution(model: ModelSays | Unmeasured) -> CheckResult:
    return check_distribution(model.probabilities if isinstance(model, ModelSays) else None)
