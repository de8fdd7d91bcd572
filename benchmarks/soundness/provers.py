"""Proofs of rollouts as different honest and dishonest machines would make them."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from benchmarks.soundness.world import Rollouts, World
from windrow.engine.validation.measures import Measured, Question, RolloutMeasure
from windrow.engine.validation.verification import ModelVerifier
from windrow.kernels.logprobs import chosen_logprobs
from windrow.kernels.sketch import activation_sketches
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.networks.grail.prf import sketch_coefficients

Proofs = tuple[tuple[NDArray[np.int64], ...], tuple[NDArray[np.float32], ...]]
"""Sketches int64 [L] and log-probs float32 [L] of each rollout; log-probs 0 over the prompt."""

SubBatches = Callable[[int], Sequence[int] | None]


class Oracle:
    """A verifier that is asked about the same tokens again and again, and runs them once.

    extra: randomness of further sketch vectors to make in the first pass.
    """

    def __init__(self, world: World, model: Any, extra: Sequence[str] = ()) -> None:
        self._verifier = ModelVerifier(model, world.loaded.eos_token_id)
        self._canonical = sketch_coefficients(world.randomness)
        self._vectors = (self._canonical, *(sketch_coefficients(text) for text in extra))
        self._known: dict[tuple[bytes, int], RolloutMeasure] = {}

    def __call__(self, questions: Sequence[Question], policy: GenerationPolicy) -> Measured:
        """As `ModelVerifier.measure`."""
        unknown = {self._key(q): q for q in questions if self._key(q) not in self._known}
        asked = [Question(q.tokens, q.prompt_length, self._vectors, True) for q in unknown.values()]
        found = self._verifier.measure(asked, policy).rollouts
        self._known |= {key: one for key, one in zip(unknown, found, strict=True) if one}
        answers = tuple(self._answer(question) for question in questions)
        return Measured(answers, self._verifier.setting, ())

    @property
    def dtype(self) -> str:
        """Number format of the model."""
        return self._verifier.setting.dtype

    def own(
        self, rollouts: Rollouts, policy: GenerationPolicy, *, randomness: str | None = None
    ) -> list[RolloutMeasure]:
        """What the model says of rollouts. randomness: the window's unless another is given."""
        vector = sketch_coefficients(randomness) if randomness else self._canonical
        questions = [
            Question(sequence, prompt, (vector,))
            for sequence, prompt in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)
        ]
        return [found for found in self(questions, policy).rollouts if found]

    def _answer(self, question: Question) -> RolloutMeasure | None:
        found = self._known.get(self._key(question))
        if found is None:
            return None
        sketches = {v.tobytes(): s for v, s in zip(self._vectors, found.sketches, strict=True)}
        return RolloutMeasure(
            tuple(sketches[c.tobytes()] for c in question.coefficients),
            *(getattr(found, field.name) for field in fields(found)[1:]),
        )

    @staticmethod
    def _key(question: Question) -> tuple[bytes, int]:
        return question.tokens.tobytes(), question.prompt_length


def prove(
    world: World,
    model: Any,
    rollouts: Rollouts,
    *,
    randomness: str | None = None,
    sub_batches: SubBatches = lambda _: None,
    backwards: bool = False,
) -> Proofs:
    """Proofs by a full forward pass, equal sequences once.

    sub_batches: sizes of the passes over that many sequences; 16 each unless given.
    """
    distinct = list(
        {
            (sequence.tobytes(), prompt): (sequence, prompt)
            for sequence, prompt in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)
        }.values()
    )
    if backwards:
        distinct.reverse()
    coefficients = (sketch_coefficients(randomness or world.randomness),)
    measured = ModelVerifier(model, world.loaded.eos_token_id).measure(
        [Question(sequence, prompt, coefficients) for sequence, prompt in distinct],
        world.policy,
        sub_batches=sub_batches(len(distinct)),
    )
    made = {
        (sequence.tobytes(), prompt): found
        for (sequence, prompt), found in zip(distinct, measured.rollouts, strict=True)
    }
    return as_proofs(
        rollouts,
        [
            made[sequence.tobytes(), prompt]
            for sequence, prompt in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)
        ],
    )


def as_proofs(rollouts: Rollouts, measures: Sequence[RolloutMeasure | None]) -> Proofs:
    """Measures as claims over whole sequences."""
    sketches, logprobs = [], []
    for prompt, found in zip(rollouts.prompt_lengths, measures, strict=True):
        if found is None:
            raise FloatingPointError("a model of the study gives NaN or infinite numbers")
        sketches.append(found.sketches[0].astype(np.int64))
        logprobs.append(np.concatenate([np.zeros(prompt, np.float32), found.logprobs]))
    return tuple(sketches), tuple(logprobs)


@torch.inference_mode()
def prove_plainly(world: World, model: Any, rollouts: Rollouts) -> Proofs:
    """Proofs as the network words them: the model's own logits, and torch's log-softmax of them.

    None of Windrow's own arithmetic takes part but that of the sketches.
    """
    coefficients = torch.tensor(sketch_coefficients(world.randomness))
    made: dict[bytes, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
    for sequence, prompt in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True):
        if sequence.tobytes() in made:
            continue
        tokens = torch.from_numpy(sequence.astype(np.int64))
        output = model(tokens[None], output_hidden_states=True)
        logprobs = output.logits[0].float().log_softmax(-1)[prompt - 1 : -1]
        chosen = logprobs.gather(1, tokens[prompt:, None])[:, 0]
        made[sequence.tobytes()] = (
            activation_sketches(output.hidden_states[-1][0], coefficients).numpy().astype(np.int64),
            np.concatenate([np.zeros(prompt, np.float32), chosen.numpy()]),
        )
    found = [made[sequence.tobytes()] for sequence in rollouts.sequences]
    return tuple(sketches for sketches, _ in found), tuple(logprobs for _, logprobs in found)


@torch.inference_mode()
def prove_while_decoding(world: World, model: Any, rollouts: Rollouts) -> Proofs:
    """Proofs from the states a generator sees: one token a step, keys and values cached."""
    coefficients = torch.tensor(sketch_coefficients(world.randomness))
    made: dict[tuple[bytes, int], tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
    for start in range(0, len(rollouts), ROLLOUTS_PER_GROUP):
        rows = range(start, start + ROLLOUTS_PER_GROUP)
        prompt = rollouts.prompt_lengths[rows[0]]
        distinct = {rollouts.sequences[r].tobytes(): rollouts.sequences[r] for r in rows}
        for sequence, states in zip(
            distinct.values(), _decoded(model, list(distinct.values()), prompt), strict=True
        ):
            targets = torch.from_numpy(sequence[prompt:].astype(np.int64))
            head, before = model.lm_head, states[prompt - 1 : -1]
            logprobs = chosen_logprobs(before, head.weight, targets, bias=head.bias).numpy()
            made[sequence.tobytes(), prompt] = (
                activation_sketches(states, coefficients).numpy().astype(np.int64),
                np.concatenate([np.zeros(prompt, np.float32), logprobs]),
            )
    found = [
        made[sequence.tobytes(), prompt]
        for sequence, prompt in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)
    ]
    return tuple(sketches for sketches, _ in found), tuple(logprobs for _, logprobs in found)


def _decoded(model: Any, sequences: Sequence[NDArray[np.int32]], prompt: int) -> list[torch.Tensor]:
    """States [L, d] of each sequence."""
    longest = max(map(len, sequences))
    tokens = torch.zeros((len(sequences), longest), dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
    cache = DynamicCache(config=model.config)
    first = model.model(input_ids=tokens[:1, :prompt], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(sequences))
    states = [first.last_hidden_state.expand(len(sequences), -1, -1)]
    for at in range(prompt, longest):
        # Rows that have ended run on; what follows their last token is not looked at.
        step = model.model(input_ids=tokens[:, at : at + 1], past_key_values=cache, use_cache=True)
        states.append(step.last_hidden_state)
    whole = torch.cat(states, dim=1)
    return [whole[row, : len(s)] for row, s in enumerate(sequences)]
