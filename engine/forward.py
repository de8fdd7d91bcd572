"""The proof forward pass: last hidden states of token sequences (grail-protocol §6.2)."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from windrow import WindrowError
from windrow.kernels.linear import FasterLayers

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class UnsupportedArchitecture(WindrowError):
    """The model does not split into a base model and a linear output head."""


class InvalidSequence(WindrowError):
    """A token sequence the model cannot read."""


class NonFiniteActivations(WindrowError):
    """The model produced NaN or infinity; a proof of that would be rejected."""


class ForwardOutOfMemory(WindrowError):
    """Not even one sequence at a time fits the device."""


@dataclass(frozen=True)
class CausalModel:
    """A causal language model as the proof needs it: base model and output head apart.

    base returns last_hidden_state, after the final norm; vocabulary and context count tokens.
    """

    base: nn.Module
    head: nn.Linear
    name: str
    pad_token_id: int
    vocabulary: int
    context: int

    @classmethod
    def of(cls, model: Any) -> "CausalModel":
        """Split a loaded transformers model, with its dropout switched off.

        Raises UnsupportedArchitecture unless it has `model` and a linear `lm_head`, as the
        Qwen2 and Llama families do, and an integer token id to pad with.
        """
        base, head = getattr(model, "model", None), getattr(model, "lm_head", None)
        name = type(model).__name__
        if not isinstance(base, nn.Module) or not isinstance(head, nn.Linear):
            raise UnsupportedArchitecture(
                f"{name} has no `model` and linear `lm_head`, so its hidden states cannot be "
                "proved; use a checkpoint of the Qwen2 or Llama families"
            )
        config = model.config
        pad = config.pad_token_id if config.pad_token_id is not None else config.eos_token_id
        if not isinstance(pad, int) or not 0 <= pad < config.vocab_size:
            raise UnsupportedArchitecture(
                f"{name}: pad token id {pad!r} is not one token of its vocabulary; "
                "set pad_token_id in the checkpoint's config.json"
            )
        model.eval()
        return cls(base, head, name, pad, config.vocab_size, config.max_position_embeddings)

    def check(self, sequence: NDArray[np.int32]) -> None:
        """Raises InvalidSequence for an empty or too long sequence or an unknown token."""
        if not 0 < len(sequence) <= self.context:
            raise InvalidSequence(
                f"a sequence of {len(sequence)} tokens; {self.name} reads 1 to {self.context}"
            )
        if sequence.min() < 0 or sequence.max() >= self.vocabulary:
            raise InvalidSequence(
                f"token ids {sequence.min()} to {sequence.max()} in a sequence; {self.name} knows "
                f"0 to {self.vocabulary - 1}: check that they were made for this checkpoint"
            )


def hidden_states(model: CausalModel, sequences: Sequence[NDArray[np.int32]]) -> list[Tensor]:
    """`last_hidden_states`. Raises NonFiniteActivations if one holds NaN or infinity."""
    hidden = last_hidden_states(model, sequences)
    for row, states in enumerate(hidden):
        if not finite(states):
            raise NonFiniteActivations(
                f"{model.name} gives NaN or infinite hidden states for sequence {row} of a "
                f"sub-batch of {len(sequences)}; its weights are damaged or overflow "
                f"{states.dtype}: fetch the checkpoint again"
            )
    return hidden


def finite(states: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # A sum is finite only if every term is: one pass, no mask of that size.
    return bool(torch.isfinite(states.sum(dtype=torch.float32)))


def last_hidden_states(model: CausalModel, sequences: Sequence[NDArray[np.int32]]) -> list[Tensor]:
    """Last hidden states [L, d] of each sequence, from one right-padded pass (§6.2).

    sequences: int32 [L] each, checked by `CausalModel.check`. The tensors are views of one
    padded tensor in the model's dtype and on its device.
    """
    tokens = np.full((len(sequences), max(map(len, sequences))), model.pad_token_id, np.int64)
    mask = np.zeros_like(tokens)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    device = model.head.weight.device
    with FasterLayers():
        padded: Tensor = model.base(
            input_ids=torch.from_numpy(tokens).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            use_cache=False,
        ).last_hidden_state
    return [padded[row, : len(sequence)] for row, sequence in enumerate(sequences)]


def in_sub_batches(
    count: int,
    size: int,
    step: Callable[[int, int], list[Result]],
    on_halved: Callable[[int], None] = lambda _size: None,
) -> list[Result]:
    """step(start, stop) over consecutive sub-batches of `size` items, results in order.

    When a step runs out of device memory the size halves for the rest of the call (§6.2), and
    on_halved is told the new one.
    Raises ForwardOutOfMemory when a single item does not fit.
    """
    results: list[Result] = []
    while len(results) < count:
        start = len(results)
        stop = min(start + size, count)
        try:
            results.extend(step(start, stop))
            continue
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise ForwardOutOfMemory(
                    f"sequence {start} alone does not fit the device's memory ({error}); "
                    "lower the generation server's share or use a larger GPU"
                ) from error
        # Outside the handler: the exception kept the failed step's tensors alive until here.
        size //= 2
        on_halved(size)
        torch.cuda.empty_cache()
        _log.warning("Out of device memory: proving in sub-batches of %d from now on", size)
    return results
