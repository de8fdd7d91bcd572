"""The network in small that the study runs on: the demo's model, its tasks, a miner's key."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from windrow.engine.ports import Environment
from windrow.engine.validation.calibration import calibrate
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.proof_scores import LOGPROB_SCORES, SKETCH_SCORES, Calibration
from windrow.environments.sandbox import Sandbox
from windrow.environments.sources import ShippedTasks
from windrow.environments.tasks import Task
from windrow.networks.grail.advantages import group_advantages
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.networks.grail.seeds import nonce, problem_seed
from windrow.networks.grail.windows import miner_randomness, validator_randomness
from windrow.pipelines.demo.network import CHECKPOINT
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.generation.transformers_generator import TransformersGenerator
from windrow.resources.inference import Inference
from windrow.resources.models.loading import LoadedCheckpoint
from windrow.resources.secret import Secret
from windrow.resources.wallet import DevelopmentWallet

WINDOW = 8_100_000
BLOCK_HASH = "0x" + "5e" * 32
NEXT_BLOCK_HASH = "0x" + "a7" * 32
STALE_BLOCK_HASH = "0x" + "3c" * 32
GROUPS = (0, 1, 2, 3)
"""Groups of each miner's file, 64 rollouts."""

CALIBRATION_MINERS = range(10_000, 10_001)
"""Miners whose rollouts only set limits; none of them is judged."""


@dataclass(frozen=True)
class Rollouts:
    """Groups of 16 rollouts as the model samples them, before anything is claimed of them.

    miners, groups: int64 [n]; a file holds one miner's rows. sequences: int32 [L] each, prompt and
    completion. prompt_lengths: of each.
    rewards, advantages: float64 [n]. successes: bool [n].
    """

    miners: NDArray[np.int64]
    groups: NDArray[np.int64]
    sequences: tuple[NDArray[np.int32], ...]
    prompt_lengths: tuple[int, ...]
    rewards: NDArray[np.float64]
    advantages: NDArray[np.float64]
    successes: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def completions(self) -> list[NDArray[np.int32]]:
        return [s[p:] for s, p in zip(self.sequences, self.prompt_lengths, strict=True)]


@dataclass(frozen=True)
class World:
    """One window of the embedded network.

    model, model_bfloat16: the same weights in float32 and bfloat16.
    """

    loaded: LoadedCheckpoint
    model_bfloat16: Any
    environment: Environment
    policy: GenerationPolicy

    @classmethod
    def load(cls) -> "World":
        logging.getLogger("transformers").setLevel(logging.ERROR)
        checkpoint = verify_checkpoint(CHECKPOINT)
        inference = Inference(ShippedTasks(), Sandbox(), "cpu", "cpu")
        loaded = inference.proof_model(checkpoint)
        return cls(
            loaded=loaded,
            model_bfloat16=copy.deepcopy(loaded.model).to(torch.bfloat16),
            environment=inference.environment(checkpoint),
            policy=checkpoint.metadata.policy,
        )

    @property
    def randomness(self) -> str:
        """R_m of the window."""
        return miner_randomness(BLOCK_HASH, None)

    def context(self, miner: int, dtype: str) -> ValidationContext:
        """What a miner's file is held against, with limits no rollout exceeds.

        The study compares proof scores with several limits itself.
        """
        return ValidationContext(
            hotkey=wallet(miner).hotkey,
            window=WINDOW,
            block_hash=BLOCK_HASH,
            miner_randomness=self.randomness,
            validator_randomness=validator_randomness(NEXT_BLOCK_HASH, None),
            drand_round=None,
            checkpoint_window=self.loaded.checkpoint_window,
            weights_hash=self.loaded.weights_hash,
            vocabulary=self.loaded.vocab_size,
            max_context=self.loaded.max_context,
            eos_token_id=self.loaded.eos_token_id,
            policy=self.policy,
            calibration=replace(NO_LIMITS, dtype=dtype),
            every_rollout=True,
        )

    def task(self, miner: int, group: int) -> Task:
        return self.environment.task(problem_seed(wallet(miner).hotkey, BLOCK_HASH, group))

    def prompt(self, miner: int, group: int) -> NDArray[np.int32]:
        return self.environment.prompt(self.task(miner, group))

    def sample(
        self,
        miners: Sequence[int],
        groups: Sequence[int] = GROUPS,
        *,
        policy: GenerationPolicy | None = None,
        alike: bool = False,
    ) -> Rollouts:
        """16 rollouts of each group of each miner, every one from a seed of its own.

        policy: other than the checkpoint's, for a miner that cheats. alike: all 16 are one.
        """
        generator = TransformersGenerator(self.loaded)
        completions = []
        for miner, group in product(miners, groups):
            first = miner * 2**32
            seeds = [first + nonce(group, index) for index in range(ROLLOUTS_PER_GROUP)]
            sampled = generator.generate(
                self.prompt(miner, group), seeds[:1] if alike else seeds, policy or self.policy
            )
            own = [completion.tokens for completion in sampled]
            completions += own * ROLLOUTS_PER_GROUP if alike else own
        return self.rollouts(miners, groups, completions)

    def rollouts(
        self, miners: Sequence[int], groups: Sequence[int], completions: Sequence[NDArray[np.int32]]
    ) -> Rollouts:
        """Completions of the groups, 16 each in order, with their true rewards."""
        sequences, lengths, rewards, successes, advantages = [], [], [], [], []
        for at, (miner, group) in enumerate(product(miners, groups)):
            own = completions[at * ROLLOUTS_PER_GROUP : (at + 1) * ROLLOUTS_PER_GROUP]
            prompt = self.prompt(miner, group)
            graded = self.environment.evaluate(self.task(miner, group), own)
            sequences += [np.concatenate([prompt, completion]) for completion in own]
            lengths += [len(prompt)] * len(own)
            rewards += [found.reward for found in graded]
            successes += [found.success for found in graded]
            advantages += group_advantages([found.reward for found in graded]).tolist()
        numbers = np.array(list(product(miners, groups)), np.int64).repeat(ROLLOUTS_PER_GROUP, 0)
        return Rollouts(
            numbers[:, 0],
            numbers[:, 1],
            tuple(sequences),
            tuple(lengths),
            np.array(rewards, np.float64),
            np.array(advantages, np.float64),
            np.array(successes, np.bool_),
        )

    def calibrations(self) -> dict[str, Calibration]:
        """Limits for this model by number format, from rollouts the study does not judge."""
        sampled = self.sample(CALIBRATION_MINERS)
        sequences, lengths = sampled.sequences, sampled.prompt_lengths
        return {
            "float32": calibrate(self.loaded.model, sequences, lengths),
            "bfloat16": calibrate(self.model_bfloat16, sequences, lengths),
        }


NO_LIMITS = Calibration(
    dtype="float32",
    **dict.fromkeys((*SKETCH_SCORES, *LOGPROB_SCORES), np.inf),
    source="none: the study compares the scores with several limits",
)


def with_eager_attention(model: Any) -> Any:
    """A copy of a model that computes attention step by step instead of in one kernel."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    return eager


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with another number of CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def wallet(miner: int) -> DevelopmentWallet:
    """A real key for each miner."""
    return DevelopmentWallet(Secret(f"//Windrow//soundness//{miner}"))
