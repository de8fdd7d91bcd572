"""How the demo's checkpoint behaves: what it solves, and whether validators would accept it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from windrow.environments.sandbox import Sandbox
from windrow.environments.sources import ShippedTasks
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.networks.grail.seeds import nonce, problem_seed
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.inference import Inference
from windrow.resources.models.loading import LoadedCheckpoint


@dataclass(frozen=True)
class Measured:
    """A checkpoint's behaviour over groups of 16 rollouts of one problem each.

    solved: share of right rollouts. mixed: share of groups with right and wrong rollouts, the
    only ones a trainer learns from.
    shortest, median, longest: completion lengths in tokens. ended: share that ends with EOS.
    least_eos: smallest p(EOS) at temperature 1 where EOS was sampled (grail-protocol §11.4, C5).
    ordinary: share whose token probabilities pass the distribution check (C9).
    """

    groups: int
    solved: float
    mixed: float
    shortest: int
    median: float
    longest: int
    ended: float
    least_eos: float
    ordinary: float

    def __str__(self) -> str:
        return (
            f"{self.groups} groups: {self.solved:.1%} of rollouts right, "
            f"{self.mixed:.0%} of groups mixed; {self.shortest} to {self.longest} tokens, median "
            f"{self.median:.0f}; {self.ended:.1%} end with EOS, of probability {self.least_eos:.3f}"
            f" or more; {self.ordinary:.1%} pass the token distribution check"
        )


def evaluate(directory: Path, groups: int) -> Measured:
    """Mine groups of the shipped problems with a FULL checkpoint, as the window loop samples them.

    Raises as `verify_checkpoint` and `load_checkpoint`.
    """
    checkpoint = verify_checkpoint(directory)
    inference = Inference(ShippedTasks(), Sandbox(), "cpu", "cpu")
    environment = inference.environment(checkpoint)
    generator = inference.generator(checkpoint)
    loaded = inference.proof_model(checkpoint)
    policy = checkpoint.metadata.policy

    solved, mixed, lengths, ends, ordinary = [], [], [], [], []
    for group in range(groups):
        task = environment.task(problem_seed("demo", "evaluation", group))
        prompt = environment.prompt(task)
        seeds = [nonce(group, index) for index in range(ROLLOUTS_PER_GROUP)]
        completions = generator.generate(prompt, seeds, policy)
        verdicts = environment.evaluate(task, [completion.tokens for completion in completions])
        solved += [verdict.success for verdict in verdicts]
        mixed.append(len({verdict.success for verdict in verdicts}) > 1)
        for completion in completions:
            lengths.append(len(completion.tokens))
            if completion.finish_reason == "stop":
                ends.append(_probabilities(loaded, prompt, completion.tokens, 1.0)[-1])
            ordinary.append(
                _is_ordinary(_probabilities(loaded, prompt, completion.tokens, policy.temperature))
            )
    return Measured(
        groups=groups,
        solved=float(np.mean(solved)),
        mixed=float(np.mean(mixed)),
        shortest=min(lengths),
        median=float(np.median(lengths)),
        longest=max(lengths),
        ended=len(ends) / len(lengths),
        least_eos=float(min(ends, default=np.nan)),
        ordinary=float(np.mean(ordinary)),
    )


@torch.inference_mode()
def _probabilities(
    loaded: LoadedCheckpoint,
    prompt: NDArray[np.int32],
    completion: NDArray[np.int32],
    temperature: float,
) -> NDArray[np.float32]:
    """Probability of each chosen token, float32 [completion length]."""
    tokens = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    logits = loaded.model(tokens[None]).logits[0, len(prompt) - 1 : -1].float() / temperature
    chosen = logits.softmax(-1).gather(1, tokens[len(prompt) :, None])
    return chosen[:, 0].numpy()


def _is_ordinary(chosen: NDArray[np.float32]) -> bool:
    """The token distribution check C9, over all tokens and over the first 50 (§11.4)."""
    return len(chosen) >= 30 and all(
        np.median(part) > 0.30 and part.min() > 1e-5 and np.quantile(part, 0.10) > 0.025
        for part in (chosen, chosen[:50])
    )
