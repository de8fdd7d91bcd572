"""Asks a model about the rollouts of a file: which of them it can read, and with what sketches."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.validation.claims import Claim
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.measures import Measured, Question, RolloutMeasure
from windrow.engine.validation.proof_verdicts import ModelSays, Unmeasured
from windrow.engine.validation.rollout_verdicts import Refused
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.constants import MAX_COMPLETION_TOKENS
from windrow.networks.grail.prf import MalformedRandomness, sketch_coefficients
from windrow.networks.grail.tokens import tokens_valid

Measure = Callable[[Sequence[Question], GenerationPolicy], Measured]
"""`ModelVerifier.measure`, or one elsewhere that answers as it does."""

Coefficients = NDArray[np.int8]


@dataclass(frozen=True)
class Answers:
    """What the model says of each rollout, None where it failed; `measured` is None then too.

    fault: what this machine, not the miner, failed at.
    """

    rollouts: list[ModelSays | Unmeasured | None]
    measured: Measured | None
    fault: str | None = None


def ask_model(
    measure: Measure,
    claims: Sequence[Claim],
    prompts: Sequence[NDArray[np.int32] | Refused | None],
    context: ValidationContext,
) -> Answers:
    """One question for every rollout that a model can read, in order.

    prompts: canonical, where known. They bound what a rollout can cost: none is read that is
    longer than its canonical prompt and the longest completion.
    """
    canonical = _coefficients(context.miner_randomness)
    unreadable = [
        _unreadable(claim, prompt, context) for claim, prompt in zip(claims, prompts, strict=True)
    ]
    own = [_coefficients(claim.randomness) for claim in claims]
    asked = [index for index, why in enumerate(unreadable) if why is None]
    times = Counter(_drawing(claims[index]) for index in asked)
    questions = [
        Question(
            claims[index].tokens,
            claims[index].prompt_length,
            _distinct(own[index], canonical),
            drawn=times[_drawing(claims[index])] > 1,
        )
        for index in asked
    ]
    try:
        measured = measure(questions, context.policy)
    except WindrowError as error:
        return Answers([None] * len(claims), None, f"the model could not be asked: {error}")
    rollouts: list[ModelSays | Unmeasured | None] = [
        None if why is None else Unmeasured(why) for why in unreadable
    ]
    for index, question, found in zip(asked, questions, measured.rollouts, strict=True):
        rollouts[index] = _says(found, question, own[index], canonical)
    return Answers(rollouts, measured)


def _unreadable(
    claim: Claim, prompt: NDArray[np.int32] | Refused | None, context: ValidationContext
) -> str | None:
    if not claim.whole:
        return "the lengths do not split the tokens into a prompt and a completion"
    if not tokens_valid(claim.tokens, context.vocabulary, context.max_context):
        return "the model cannot read the tokens"
    if isinstance(prompt, np.ndarray) and len(claim.tokens) > len(prompt) + MAX_COMPLETION_TOKENS:
        return "longer than the canonical prompt and the longest completion"
    return None


def _drawing(claim: Claim) -> tuple[int | None, bytes]:
    """Equal for equal completions of a group."""
    return claim.place.rollout_group, claim.tokens.tobytes()


def _coefficients(randomness: str | None) -> Coefficients | None:
    if randomness is None:
        return None
    try:
        return sketch_coefficients(randomness)
    except MalformedRandomness:
        return None


def _distinct(*vectors: Coefficients | None) -> tuple[Coefficients, ...]:
    return tuple({v.tobytes(): v for v in vectors if v is not None}.values())


def _says(
    found: RolloutMeasure | None,
    question: Question,
    own: Coefficients | None,
    canonical: Coefficients | None,
) -> ModelSays | Unmeasured:
    if found is None:
        return Unmeasured("the model gives NaN or infinite numbers for these tokens")
    sketches = dict(zip((c.tobytes() for c in question.coefficients), found.sketches, strict=True))
    return ModelSays(
        own_sketches=None if own is None else sketches[own.tobytes()],
        canonical_sketches=None if canonical is None else sketches[canonical.tobytes()],
        margins=found.margins,
        logprobs=found.logprobs,
        totals=found.totals,
        probabilities=found.probabilities,
        eos_probability=found.eos_probability,
        better_count=found.better_count,
        better_mass=found.better_mass,
        draw_logprobs=found.draw_logprobs,
    )
