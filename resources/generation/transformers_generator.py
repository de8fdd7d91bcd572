"""Sampling with transformers on the CPU or one GPU, every request from a seed of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from windrow.engine.mining.in_flight import InFlight
from windrow.engine.ports import Completion, GenerationCancelled
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.prompt import check_prompt
from windrow.resources.generation.token_sampling import (
    candidates,
    draw,
    penalise_repetition,
    uniforms,
)
from windrow.resources.models.loading import LoadedCheckpoint


@dataclass(frozen=True)
class TransformersGenerator:
    """An `engine.ports.Generator`: completions of one prompt, one per seed.

    The prompt is computed once and its cache repeated for every seed. All rows then have equal
    length at every step, so nothing is padded or masked; a row that ends leaves the batch.
    A completion depends on the prompt, its own seed and the policy; what else is in the batch
    changes it only through floating-point drift in the logits.
    """

    checkpoint: LoadedCheckpoint
    _in_flight: InFlight = field(default_factory=InFlight, init=False, repr=False, compare=False)

    lanes: ClassVar[int] = 1
    reproducible: ClassVar[bool] = True
    weights_proof: ClassVar[str] = "own"

    def generate(
        self, prompt: NDArray[np.int32], seeds: Sequence[int], policy: GenerationPolicy
    ) -> list[Completion]:
        """One completion per seed, in order.

        prompt: int32 [P]; seeds: 0 <= seed < 2^128.
        Raises InvalidPrompt, PromptTooLong (the network skips such a group, grail-protocol §10.4),
        NonFiniteLogits and GenerationCancelled.
        """
        check_prompt(
            prompt,
            policy,
            vocab_size=self.checkpoint.vocab_size,
            max_context=self.checkpoint.max_context,
            checkpoint_window=self.checkpoint.checkpoint_window,
        )
        if not seeds:
            return []
        with self._in_flight.call() as told_to_stop:
            tokens, lengths = self._decode(prompt, seeds, policy, told_to_stop)
        return [
            Completion(
                tokens=row[:length],
                finish_reason="stop"
                if row[length - 1] == self.checkpoint.eos_token_id
                else "length",
            )
            for row, length in zip(tokens, lengths, strict=True)
        ]

    def cancel(self) -> None:
        """Stop the calls in flight after the token they are at."""
        self._in_flight.cancel()

    @torch.inference_mode()
    def _decode(
        self,
        prompt: NDArray[np.int32],
        seeds: Sequence[int],
        policy: GenerationPolicy,
        told_to_stop: Event,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens int32 [B, max_new_tokens], and int64 [B]: how many of them each row has."""
        model, device, eos = (
            self.checkpoint.model,
            self.checkpoint.device,
            self.checkpoint.eos_token_id,
        )
        steps = policy.max_new_tokens
        uniform = torch.from_numpy(uniforms(seeds, steps)).to(device)
        tokens = torch.zeros((len(seeds), steps), dtype=torch.int32, device=device)
        lengths = torch.full((len(seeds),), steps, device=device)
        rows = torch.arange(len(seeds), device=device)

        inputs = torch.from_numpy(prompt.astype(np.int64)).to(device)[None]
        cache = DynamicCache(config=model.config)
        logits = self._logits(inputs, cache).expand(len(seeds), -1)
        cache.batch_repeat_interleave(len(seeds))
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=device)
        seen[:, inputs[0]] = True

        for step in range(steps):
            if told_to_stop.is_set():
                raise GenerationCancelled(f"generation was told to stop after {step} tokens")
            if policy.repetition_penalty != 1.0:
                logits = penalise_repetition(logits, seen, policy.repetition_penalty)
            chosen = draw(*candidates(logits, policy), uniform[rows, step])
            tokens[rows, step] = chosen.int()
            running = chosen != eos
            if not bool(running.all()):
                lengths[rows[~running]] = step + 1
                rows, chosen, seen = rows[running], chosen[running], seen[running]
                cache.batch_select_indices(running.nonzero()[:, 0])
            if rows.numel() == 0 or step + 1 == steps:
                break
            seen.scatter_(1, chosen[:, None], True)
            logits = self._logits(chosen[:, None], cache)
        return tokens.cpu().numpy(), lengths.cpu().numpy()

    def _logits(self, inputs: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Logits float32 [B, V] after the last of the inputs int64 [B, L]; the cache grows by L."""
        output = self.checkpoint.model(
            input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits.float()
