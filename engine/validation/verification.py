"""What a model says of claimed rollouts: all a validator compares, out of one forward pass each.

Sketches, log-probs, sampling probabilities and the probability of the end are taken while the
hidden states are on the device; of a vocabulary of logits only one block exists at a time, and of
hidden states only one sub-batch (grail-validation §7.1, §27).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windrow.engine.forward import (
    CausalModel,
    InvalidSequence,
    finite,
    in_sub_batches,
    last_hidden_states,
)
from windrow.engine.proving import CPU_BATCH
from windrow.engine.validation.drawing import Drawing
from windrow.engine.validation.measures import ForwardSetting, Measured, Question, RolloutMeasure
from windrow.kernels.distribution import chosen_scores, eos_probability
from windrow.kernels.linear import linear
from windrow.kernels.sketch import activation_sketches, sketch_margins
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.constants import (
    PROOF_BATCH,
    SKETCH_BUCKETS,
    SKETCH_MODULUS,
    SKETCH_TOP_K,
)


class ModelVerifier:
    """Measures rollouts with a loaded transformers model, on the model's device."""

    def __init__(self, model: Any, eos_token_id: int) -> None:
        """eos_token_id: of the tokenizer. Raises UnsupportedArchitecture."""
        self._model = CausalModel.of(model)
        self._attention = str(model.config._attn_implementation)
        self._eos_token_id = eos_token_id

    @property
    def setting(self) -> ForwardSetting:
        """How a pass would run now."""
        weight = self._model.head.weight
        return ForwardSetting(
            dtype=str(weight.dtype).removeprefix("torch."),
            attention=self._attention,
            device=str(weight.device),
            threads=torch.get_num_threads(),
        )

    def measure(
        self,
        questions: Sequence[Question],
        policy: GenerationPolicy,
        *,
        sub_batches: Sequence[int] | None = None,
    ) -> Measured:
        """Right-padded passes over 16 questions at a time (§7.1), 4 on a CPU, the shortest first.

        Padding costs as much as tokens do, so those of like length go together.
        policy: the checkpoint's temperature and repetition penalty. sub_batches: as an earlier
        measure recorded them, to get its bits again; a measure that ran out of device memory has
        smaller ones. Raises InvalidSequence, ForwardOutOfMemory.
        """
        for question in questions:
            self._model.check(question.tokens)
            if not 1 <= question.prompt_length < len(question.tokens):
                raise InvalidSequence(
                    f"prompt length {question.prompt_length} of {len(question.tokens)} tokens; "
                    "a rollout has at least one token of each, prompt and completion"
                )
        order = np.argsort([len(question.tokens) for question in questions], kind="stable")
        done: list[int] = []

        def step(start: int, stop: int) -> list[RolloutMeasure | None]:
            found = self._measure_sub_batch([questions[row] for row in order[start:stop]], policy)
            done.append(stop - start)
            return found

        on_cpu = self._model.head.weight.device.type == "cpu"
        with torch.inference_mode():
            if sub_batches is None:
                size = CPU_BATCH if on_cpu else PROOF_BATCH
                found = in_sub_batches(len(questions), size, step)
            else:
                found = _planned(len(questions), sub_batches, step)
        rollouts = tuple(found[place] for place in np.argsort(order))
        return Measured(rollouts, self.setting, tuple(done))

    def _measure_sub_batch(
        self, questions: Sequence[Question], policy: GenerationPolicy
    ) -> list[RolloutMeasure | None]:
        hidden = last_hidden_states(self._model, [question.tokens for question in questions])
        head = self._model.head
        # Together, for the head is read once then, which is all that so few products cost.
        ends = linear(torch.stack([states[-2] for states in hidden]), head.weight, head.bias)
        return [
            self._measure_rollout(question, states, end, policy) if finite(states) else None
            for question, states, end in zip(questions, hidden, ends, strict=True)
        ]

    def _measure_rollout(
        self, question: Question, states: Tensor, end: Tensor, policy: GenerationPolicy
    ) -> RolloutMeasure | None:
        """end: [V] logits of the last token, in the model's dtype."""
        head, prompt = self._model.head, question.prompt_length
        scores = chosen_scores(
            states[prompt - 1 : -1],  # the token at t is predicted from the state at t-1
            head.weight,
            torch.from_numpy(question.tokens.astype(np.int64)).to(states.device),
            prompt,
            temperature=policy.temperature,
            repetition_penalty=policy.repetition_penalty,
            bias=head.bias,
        )
        if not finite(scores.logprobs):
            return None
        drawing = Drawing(
            self._model, question, states[prompt - 1 : -1], scores.probabilities, policy
        )
        better_count, better_mass = drawing.better()
        return RolloutMeasure(
            sketches=tuple(_sketches(states, c) for c in question.coefficients),
            margins=sketch_margins(states, top_k=SKETCH_TOP_K, buckets=SKETCH_BUCKETS)
            .cpu()
            .numpy(),
            logprobs=scores.logprobs.cpu().numpy(),
            totals=scores.totals.cpu().numpy(),
            probabilities=scores.probabilities.cpu().numpy(),
            eos_probability=eos_probability(end, self._eos_token_id),
            better_count=better_count,
            better_mass=better_mass,
            draw_logprobs=drawing.logprobs() if question.drawn else None,
        )


def _sketches(states: Tensor, coefficients: NDArray[np.int8]) -> NDArray[np.int32]:
    sketches: NDArray[np.int32] = (
        activation_sketches(
            states,
            torch.tensor(coefficients),
            top_k=SKETCH_TOP_K,
            buckets=SKETCH_BUCKETS,
            modulus=SKETCH_MODULUS,
        )
        .cpu()
        .numpy()
    )
    return sketches


def _planned(count: int, sizes: Sequence[int], step: Any) -> list[RolloutMeasure | None]:
    if sum(sizes) != count or any(size < 1 for size in sizes):
        raise InvalidSequence(
            f"sub-batches {list(sizes)} for {count} rollouts: they were recorded for others"
        )
    results: list[RolloutMeasure | None] = []
    for size in sizes:
        results.extend(step(len(results), len(results) + size))
    return results
