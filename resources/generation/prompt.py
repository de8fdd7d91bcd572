"""What a prompt must be before any engine sees it."""

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.networks.grail.checkpoint import GenerationPolicy


class InvalidPrompt(WindrowError):
    """A prompt is empty, no list of integers, or holds ids outside the model's vocabulary."""


class PromptTooLong(WindrowError):
    """Prompt and completion together do not fit into the model's context."""


def check_prompt(
    prompt: NDArray[np.int32],
    policy: GenerationPolicy,
    *,
    vocab_size: int,
    max_context: int,
    checkpoint_window: int,
) -> None:
    """Refuse what a model could not take; some servers die of it.

    prompt: int [P]. Raises InvalidPrompt, and PromptTooLong, for which the network skips a group
    (grail-protocol §10.4).
    """
    if prompt.ndim != 1 or prompt.size == 0 or not np.issubdtype(prompt.dtype, np.integer):
        raise InvalidPrompt(
            f"a prompt must be a non-empty list of token ids, not an array of shape "
            f"{prompt.shape} and type {prompt.dtype}"
        )
    if prompt.min() < 0 or prompt.max() >= vocab_size:
        wrong = int(prompt.min() if prompt.min() < 0 else prompt.max())
        raise InvalidPrompt(
            f"prompt id {wrong} is outside the vocabulary of {vocab_size} of checkpoint "
            f"{checkpoint_window}; tokenise with its own tokenizer"
        )
    if prompt.size + policy.max_new_tokens > max_context:
        raise PromptTooLong(
            f"a prompt of {prompt.size} and {policy.max_new_tokens} new tokens exceed the "
            f"context of {max_context}; skip this problem or raise the limit"
        )
