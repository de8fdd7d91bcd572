"""Proofs of token sequences: a sketch of every position, a log-prob of every completion token."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray

from windrow.engine.forward import (
    CausalModel,
    InvalidSequence,
    NonFiniteActivations,
    hidden_states,
    in_sub_batches,
)
from windrow.engine.mining.in_flight import InFlight
from windrow.engine.ports import Proof, ProofCancelled
from windrow.kernels.logprobs import chosen_logprobs
from windrow.kernels.sketch import activation_sketches
from windrow.networks.grail.constants import (
    PROOF_BATCH,
    SKETCH_BUCKETS,
    SKETCH_MODULUS,
    SKETCH_TOP_K,
)

CPU_BATCH: Final = 4
"""Enough rows for a core's matrix products; float32 drift between batch shapes is 1e-6."""


class ModelProver:
    """`engine.ports.Prover` over a loaded transformers model, on the model's device."""

    lanes: ClassVar[int] = 1

    def __init__(self, model: Any) -> None:
        """Raises UnsupportedArchitecture, see `CausalModel.of`."""
        self._model = CausalModel.of(model)
        self._on_cpu = self._model.head.weight.device.type == "cpu"
        self._batch = CPU_BATCH if self._on_cpu else PROOF_BATCH
        self._in_flight = InFlight()

    def prove(
        self,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
    ) -> list[Proof]:
        """One proof per sequence, from passes over 16 at a time in input order (§6.2).

        On a CPU, where padding costs as much as tokens do, sequences of like length go together.

        sequences: int32 [L], prompt and completion; prompt_lengths: in [1, L];
        coefficients: int8 [16]. Only one sub-batch's hidden states exist at a time, and
        log-probs are made for completion tokens only. A sub-batch that does not fit the device's
        memory is halved, and later calls begin with the size that fitted.
        Raises InvalidSequence, NonFiniteActivations, ForwardOutOfMemory, ProofCancelled.
        """
        for sequence, prompt_length in zip(sequences, prompt_lengths, strict=True):
            self._model.check(sequence)
            if not 1 <= prompt_length <= len(sequence):
                raise InvalidSequence(
                    f"prompt length {prompt_length} of a sequence of {len(sequence)} tokens; "
                    "a prompt has at least one token and lies within its sequence"
                )

        order = np.arange(len(sequences))
        if self._on_cpu:
            order = np.argsort([len(sequence) for sequence in sequences], kind="stable")

        def step(start: int, stop: int) -> list[Proof]:
            if told_to_stop.is_set():
                raise ProofCancelled(f"told to stop after {start} of {len(sequences)} proofs")
            rows = order[start:stop].tolist()
            return self._prove_sub_batch(
                [sequences[row] for row in rows],
                [prompt_lengths[row] for row in rows],
                coefficients,
            )

        with torch.inference_mode(), self._in_flight.call() as told_to_stop:
            proofs = in_sub_batches(len(sequences), self._batch, step, self._remember)
        return [proofs[place] for place in np.argsort(order).tolist()]

    def cancel(self) -> None:
        """Stop the calls in flight after the sub-batch they are at."""
        self._in_flight.cancel()

    def _remember(self, size: int) -> None:
        self._batch = size

    def _prove_sub_batch(
        self,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
    ) -> list[Proof]:
        hidden = hidden_states(self._model, sequences)
        weights = torch.tensor(coefficients)
        sketches = [
            activation_sketches(
                states,
                weights,
                top_k=SKETCH_TOP_K,
                buckets=SKETCH_BUCKETS,
                modulus=SKETCH_MODULUS,
            )
            for states in hidden
        ]
        # The token at t is predicted from the hidden state at t-1 (§6.3).
        predicting = torch.cat(
            [states[p - 1 : -1] for states, p in zip(hidden, prompt_lengths, strict=True)]
        )
        del hidden
        completions = [tokens[p:] for tokens, p in zip(sequences, prompt_lengths, strict=True)]
        targets = torch.from_numpy(np.concatenate(completions).astype(np.int64))
        head = self._model.head
        logprobs = chosen_logprobs(
            predicting, head.weight, targets.to(predicting.device), bias=head.bias
        )
        if not torch.isfinite(logprobs).all():
            raise NonFiniteActivations(
                f"{self._model.name} gives NaN or infinite log-probs; "
                "its output head is damaged: fetch the checkpoint again"
            )
        ends = np.cumsum([len(completion) for completion in completions])
        parts = np.split(logprobs.cpu().numpy(), ends[:-1])
        return [
            Proof(
                sketch.cpu().numpy(),
                np.concatenate([np.zeros(p, np.float32), part]),
            )
            for sketch, p, part in zip(sketches, prompt_lengths, parts, strict=True)
        ]
