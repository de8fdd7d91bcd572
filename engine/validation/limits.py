"""Limits of Windrow's own proof check for one model, from rollouts it samples itself."""

import hashlib
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow.engine.ports import Environment, Generator
from windrow.engine.validation.calibration import calibrate
from windrow.engine.validation.proof_scores import Calibration
from windrow.networks.grail.checkpoint import GenerationPolicy

TASKS: Final = 4
EACH: Final = 8
"""Tasks, and rollouts of each: the limits hang on the furthest drift of some dozens."""

MOST_TOKENS: Final = 256
"""Of a completion. Passes over longer ones drift no further, and cost by their length."""


def honest_limits(
    model: Any,
    generator: Generator,
    environment: Environment,
    policy: GenerationPolicy,
    weights_hash: str,
    max_context: int,
) -> Calibration:
    """`calibrate` on rollouts sampled here, always the same of one model.

    model, generator: of the same weights. policy: the checkpoint's, for completions of at most
    MOST_TOKENS. max_context: most tokens of prompt and completion.
    Raises CalibrationError, and as generator and environment do.
    """
    sequences: list[NDArray[np.int32]] = []
    prompt_lengths: list[int] = []
    for number in range(TASKS):
        prompt = environment.prompt(environment.task(_seed(weights_hash, number)))
        room = min(policy.max_new_tokens, MOST_TOKENS, max_context - len(prompt))
        if room < 1:
            continue
        seeds = [_seed(weights_hash, number, index) for index in range(EACH)]
        for completion in generator.generate(prompt, seeds, replace(policy, max_new_tokens=room)):
            sequences.append(np.concatenate([prompt, completion.tokens]).astype(np.int32))
            prompt_lengths.append(len(prompt))
    return calibrate(model, sequences, prompt_lengths)


def _seed(*parts: object) -> int:
    text = "windrow calibration:" + ":".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
