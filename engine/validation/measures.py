"""What a verifier is asked of rollouts and what it says; needs no model library to be read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Question:
    """One rollout to measure.

    tokens: int32 [L], prompt and completion. prompt_length: in [1, L). coefficients: int8 [16]
    each, one or more sketch vectors; rollouts may differ in theirs. drawn: whether to say how
    likely a sampler draws each token, which costs as much again where the model is not certain.
    """

    tokens: NDArray[np.int32]
    prompt_length: int
    coefficients: tuple[NDArray[np.int8], ...]
    drawn: bool = False


@dataclass(frozen=True)
class RolloutMeasure:
    """What the model says of one rollout of L tokens, C of them its completion.

    sketches: int32 [L] for each coefficient vector asked for. margins: float32 [L], the least
    relative change of an activation that can change a sketch. logprobs: float32 [C], temperature
    1. totals: float32 [C], logsumexp of the logits. probabilities: float32 [C], as sampled.
    eos_probability: of EOS after all tokens but the last, in the dtype of the logits (§8.5).
    better_count, better_mass: most tokens that were clearly better than one of the completion's
    least likely, and most probability of such; 0 where all are likely. draw_logprobs: float32 [C],
    among the tokens that top-k and top-p keep; None unless asked for.
    """

    sketches: tuple[NDArray[np.int32], ...]
    margins: NDArray[np.float32]
    logprobs: NDArray[np.float32]
    totals: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    eos_probability: float
    better_count: int
    better_mass: float
    draw_logprobs: NDArray[np.float32] | None


@dataclass(frozen=True)
class ForwardSetting:
    """What the bits of a forward pass depend on besides weights, tokens and sub-batches."""

    dtype: str
    attention: str
    device: str
    threads: int


@dataclass(frozen=True)
class Measured:
    """Measures in the order of the questions; None where the model gives no finite numbers.

    sub_batches: sequences of each forward pass, in order.
    """

    rollouts: tuple[RolloutMeasure | None, ...]
    setting: ForwardSetting
    sub_batches: tuple[int, ...]
