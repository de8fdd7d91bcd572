"""What a sampler makes of a completion: whether it keeps its tokens, how likely it draws them."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windrow.engine.forward import CausalModel
from windrow.engine.validation.measures import Question
from windrow.kernels.distribution import sampler_scores
from windrow.kernels.linear import linear
from windrow.kernels.nucleus import clearly_better, draw_logprobs
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.validation.drawing import SLACK, least_kept

LEAST_LIKELY: Final = 8
"""Tokens of a completion that are held against all others: one that no sampler keeps is among the
least likely."""


class Drawing:
    """One rollout's tokens under a sampler.

    states: [C, d], each before a token of the completion. probabilities: float32 [C], of the
    tokens as sampled, with none left out.
    """

    def __init__(
        self,
        model: CausalModel,
        question: Question,
        states: Tensor,
        probabilities: Tensor,
        policy: GenerationPolicy,
    ) -> None:
        self._head = model.head
        self._sequence = torch.from_numpy(question.tokens.astype(np.int64)).to(states.device)
        self._first = question.prompt_length
        self._states, self._probabilities, self._policy = states, probabilities, policy

    def better(self) -> tuple[int, float]:
        """Most tokens clearly better than one of the least likely, and most probability of them.

        0 where all are likely enough to be kept for certain.
        """
        count = min(LEAST_LIKELY, len(self._probabilities))
        least = self._probabilities.topk(count, largest=False)
        rows = least.indices[least.values < least_kept(self._policy)]
        if not len(rows):
            return 0, 0.0
        found = clearly_better(*self._scores(rows), SLACK)
        return int(found.tokens.max()), float(found.mass.max())

    def logprobs(self) -> NDArray[np.float32]:
        """Log-probability of each token among those that are kept, float32 [C]."""
        drawn = torch.zeros_like(self._probabilities)
        # A token that alone reaches top_p is the only one that is kept.
        rows = (self._probabilities < self._policy.top_p).nonzero().squeeze(1)
        if len(rows):
            drawn[rows] = draw_logprobs(
                *self._scores(rows), top_k=self._policy.top_k, top_p=self._policy.top_p
            )
        logprobs: NDArray[np.float32] = drawn.cpu().numpy()
        return logprobs

    def _scores(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = rows + self._first
        scores = sampler_scores(
            linear(self._states[rows], self._head.weight, self._head.bias),
            self._sequence,
            at,
            temperature=self._policy.temperature,
            repetition_penalty=self._policy.repetition_penalty,
        )
        return scores, self._sequence[at]
