"""Models a miner might run instead of the checkpoint's."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Qwen2ForCausalLM

from windrow.pipelines.demo.corpus import Corpus, Example
from windrow.pipelines.demo.train import example_loss

STEP_EXAMPLES = 16


def quantised(model: Any, bits: int) -> Any:
    """Every weight matrix rounded to `bits` bits, a scale for each output channel."""
    largest = 2 ** (bits - 1) - 1

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        scale = weight.abs().amax(dim=1, keepdim=True) / largest
        return torch.round(weight / scale) * scale

    return _each_matrix(model, rounded)


def pruned(model: Any, share: float) -> Any:
    """The smallest weights of every matrix set to zero."""

    def without_smallest(weight: torch.Tensor) -> torch.Tensor:
        limit = torch.quantile(weight.abs().flatten(), share)
        return torch.where(weight.abs() > limit, weight, 0.0)

    return _each_matrix(model, without_smallest)


def without_layers(model: Any, kept: int) -> Any:
    """A smaller model: only the first layers."""
    smaller = copy.deepcopy(model)
    smaller.model.layers = smaller.model.layers[:kept]
    smaller.config.num_hidden_layers = kept
    smaller.model.config.num_hidden_layers = kept
    return smaller


def untrained(model: Any, seed: int = 7) -> Any:
    """The same architecture from another seed."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(copy.deepcopy(model.config)).eval()


@dataclass(frozen=True)
class Lesson:
    """Stories the demo never asks, enough for one step of training."""

    prefix: torch.Tensor
    examples: list[Example]

    @classmethod
    def of(cls, tokenizer: Any) -> "Lesson":
        corpus = Corpus(tokenizer, seed=4242)
        return cls(torch.tensor([corpus.prefix]), corpus.take(STEP_EXAMPLES))


def fine_tuned(model: Any, lesson: Lesson, *, rate: float, adam: bool = True) -> Any:
    """The model after one real step of training.

    adam: AdamW, whose first step moves every weight by about `rate`; else plain SGD.
    """
    model = copy.deepcopy(model)
    loss = example_loss(model, lesson.prefix, lesson.examples)
    optimizer = (
        torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
        if adam
        else torch.optim.SGD(model.parameters(), lr=rate)
    )
    loss.backward()
    optimizer.step()
    return model.eval()


def _each_matrix(model: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for module in changed.model.layers.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(change(module.weight))
    return changed
