"""How far honest proofs of one model lie apart: the limits of Windrow's own proof check."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.validation.measures import Question, RolloutMeasure
from windrow.engine.validation.proof_scores import (
    CONSERVATIVE,
    Calibration,
    Expected,
    ProofScores,
    proof_scores,
)
from windrow.engine.validation.verification import ModelVerifier
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.prf import sketch_coefficients

MARGIN: Final = 4.0
"""Limit over the largest score seen: a machine of another kind drifts further than this one."""

LEAST: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "float32": MappingProxyType(
            {
                "sketches_differing": 0.10,
                "sketch_distance": 0.10,
                "stretch_distance": 0.50,
                "sketch_drift": 5e-5,
                "mean_drift": 5e-6,
                "logit_drift": 1e-4,
                "logprob_mean": 5e-6,
            }
        ),
        "bfloat16": MappingProxyType(
            {
                "sketches_differing": 0.08,
                "sketch_distance": 0.035,
                "stretch_distance": 0.07,
                "sketch_drift": 0.02,
                "mean_drift": 5e-4,
                "logit_drift": 0.09,
                "logprob_mean": 5e-3,
            }
        ),
    }
)
"""Limits no calibration goes below: a few rollouts may show no drift. In float32 honest passes
drift by 1e-6 in an activation and 1e-5 in a logit, weights rounded to 8 bits by 5e-3 and 5e-2; how
many sketches differ says little there, since passages that repeat stand at an edge together."""

_PLAIN_SAMPLING: Final = GenerationPolicy(
    max_new_tokens=1, temperature=1.0, top_p=1.0, top_k=None, repetition_penalty=1.0
)


class CalibrationError(WindrowError):
    """Honest drift cannot be measured with this model or these sequences."""


def calibrate(
    model: Any,
    sequences: Sequence[NDArray[np.int32]],
    prompt_lengths: Sequence[int],
    *,
    randomness: str = "ca1b",
) -> Calibration:
    """Limits for this model on this device, from honest passes of the same sequences.

    sequences: int32 [L] each, best completions the model sampled itself, of all lengths that
    occur; some dozens. The claims come from passes as a prover runs them, 16 at a time; the
    verifier's then differ in batch shape, padding, threads and attention kernel. Limits are 4
    times the largest score, at least LEAST and at most the default of the number format.
    Raises CalibrationError without a sequence or for a format without defaults.
    """
    verifier = ModelVerifier(model, eos_token_id=0)
    dtype = verifier.setting.dtype
    if not sequences or dtype not in CONSERVATIVE:
        raise CalibrationError(
            f"{len(sequences)} sequences of a model in {dtype}: a calibration needs at least one, "
            f"and a model in {' or '.join(CONSERVATIVE)}"
        )
    coefficients = (sketch_coefficients(randomness),)
    questions = [
        Question(tokens, prompt, coefficients)
        for tokens, prompt in zip(sequences, prompt_lengths, strict=True)
    ]
    scores = list(honest_scores(model, verifier, questions))
    default = CONSERVATIVE[dtype]
    limits = {}
    for name, least in LEAST[dtype].items():
        seen, most = max(getattr(score, name) for score in scores), getattr(default, name)
        # Above the default, all-zero claims would begin to pass.
        limits[name] = min(most, max(MARGIN * seen, least))
    return Calibration(
        dtype=dtype,
        **limits,
        rollouts=len(questions),
        source=f"{len(scores)} honest passes of {len(questions)} rollouts by {type(model).__name__}"
        f" on {verifier.setting.device} with {verifier.setting.attention}, torch "
        f"{torch.__version__}: alone, in reverse order, by threes, with other threads, with other "
        "attention",
    )


def honest_scores(
    model: Any, verifier: ModelVerifier, questions: Sequence[Question]
) -> Iterator[ProofScores]:
    """Scores of every rollout's claims, made 16 at a time, against other honest passes."""
    count = len(questions)
    claims = verifier.measure(questions, _PLAIN_SAMPLING).rollouts
    backwards = list(reversed(questions))
    threes = [3] * (count // 3) + [count % 3] * (count % 3 > 0)
    passes = [
        verifier.measure(questions, _PLAIN_SAMPLING, sub_batches=[1] * count).rollouts,
        verifier.measure(backwards, _PLAIN_SAMPLING).rollouts[::-1],
        verifier.measure(questions, _PLAIN_SAMPLING, sub_batches=threes).rollouts,
    ]
    with _threads(1 if torch.get_num_threads() > 1 else 2):
        passes.append(verifier.measure(questions, _PLAIN_SAMPLING).rollouts)
    # On a CPU a row's bits hardly depend on its batch; another kernel rounds as other devices do.
    with _other_attention(model):
        passes.append(verifier.measure(questions, _PLAIN_SAMPLING).rollouts)
    for own in passes:
        for claimed, measured in zip(claims, own, strict=True):
            yield _scores(claimed, measured)


def _scores(claimed: RolloutMeasure | None, own: RolloutMeasure | None) -> ProofScores:
    if claimed is None or own is None:
        raise CalibrationError(
            "the model gives NaN or infinite numbers for a sequence; fetch its checkpoint again"
        )
    return proof_scores(
        claimed.sketches[0].astype(np.int64),
        claimed.logprobs,
        Expected(own.sketches[0], own.margins, own.logprobs, own.totals),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _other_attention(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa" if before == "eager" else "eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
