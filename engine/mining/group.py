"""One group on its way through the loop: what is made of it, and what would have it refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from windrow.engine.mining.spool import GROUP_SCHEMA, list_array
from windrow.engine.ports import Completion, Proof
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Task
from windrow.networks.grail.advantages import group_advantages
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.constants import CHALLENGE_POSITIONS, MIN_EOS_PROBABILITY
from windrow.networks.grail.seeds import nonce

EOS_MARGIN = 1.15
"""A validator's bfloat16 probability of EOS drifts by up to 8 % from ours; a group closer to the
network's limit than this is not worth a ban."""


@dataclass
class Group:
    """A group in flight; each stage fills in its part.

    generation_seconds, reward_seconds, proof_seconds: time the stage's worker was busy with it.
    """

    number: int
    problem_seed: int
    request_seeds: list[int]
    task: Task | None = None
    prompt: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    completions: list[Completion] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    generation_seconds: float = 0.0
    reward_seconds: float = 0.0
    proof_seconds: float = 0.0

    def sequences(self) -> list[NDArray[np.int32]]:
        """Prompt and completion of every rollout: 16 arrays int32 [L]."""
        return [np.concatenate([self.prompt, c.tokens]) for c in self.completions]

    def completion_tokens(self) -> int:
        """Sampled tokens of all rollouts together."""
        return sum(len(c.tokens) for c in self.completions)


def completion_problem(
    completions: Sequence[Completion], policy: GenerationPolicy, vocab_size: int, eos_token_id: int
) -> tuple[str, str] | None:
    """Why a validator would refuse one of these completions, as (reason, detail), or None.

    grail-protocol §11.4 C2 (token ids), C4 (least length), C5 (length and last token).
    """
    for index, completion in enumerate(completions):
        tokens = completion.tokens
        length = len(tokens)
        if length < CHALLENGE_POSITIONS:
            return (
                "short_completion",
                f"rollout {index} has {length} tokens; {CHALLENGE_POSITIONS} are needed",
            )
        if int(tokens.min()) < 0 or int(tokens.max()) >= vocab_size:
            bad = int(tokens[(tokens < 0) | (tokens >= vocab_size)][0])
            return (
                "token_outside_vocabulary",
                f"rollout {index} holds token id {bad}; the vocabulary has {vocab_size}",
            )
        if length > policy.max_new_tokens:
            return (
                "long_completion",
                f"rollout {index} has {length} tokens; the policy allows {policy.max_new_tokens}",
            )
        if length < policy.max_new_tokens and int(tokens[-1]) != eos_token_id:
            return (
                "not_terminated",
                f"rollout {index} stops after {length} of {policy.max_new_tokens} tokens "
                f"with token {int(tokens[-1])} instead of EOS ({eos_token_id})",
            )
    return None


def proof_problem(
    completions: Sequence[Completion], proofs: Sequence[Proof], policy: GenerationPolicy
) -> tuple[str, str] | None:
    """Why the proved numbers would have the group refused, as (reason, detail), or None.

    grail-protocol §11.4 C5: EOS must have had probability 0.02 at temperature 1, which is the
    log-prob the proof already holds for the last token. C8: log-probs must be finite.
    """
    for index, (completion, proof) in enumerate(zip(completions, proofs, strict=True)):
        if not np.isfinite(proof.logprobs).all():
            return "logprobs_not_finite", f"rollout {index} has a log-prob that is not finite"
        eos_probability = float(np.exp(proof.logprobs[-1]))
        ended_early = len(completion.tokens) < policy.max_new_tokens
        if ended_early and eos_probability < MIN_EOS_PROBABILITY * EOS_MARGIN:
            return (
                "improbable_eos",
                f"rollout {index} ends with EOS at probability {eos_probability:.4f}; "
                f"validators demand {MIN_EOS_PROBABILITY}",
            )
    return None


def group_batch(group: Group, block: int, finished_at: float) -> pa.RecordBatch:
    """The finished group as GROUP_SCHEMA rows. block: chain head; finished_at: unix seconds."""
    size = len(group.completions)
    rewards = np.array([e.reward for e in group.evaluations], dtype=np.float64)
    sketches: pa.Array = pa.nulls(size, pa.list_(pa.int32()))
    logprobs: pa.Array = pa.nulls(size, pa.list_(pa.float32()))
    if group.proofs:
        sketches = list_array([p.sketches for p in group.proofs], pa.int32())
        logprobs = list_array([p.logprobs for p in group.proofs], pa.float32())
    if group.task is None:
        raise ValueError(f"group {group.number} has no task")
    columns: dict[str, pa.Array | list[object]] = {
        "rollout_group": [group.number] * size,
        "rollout_index": list(range(size)),
        "nonce": [nonce(group.number, index) for index in range(size)],
        "problem_seed": [group.problem_seed] * size,
        "request_seed": list(group.request_seeds),
        "task_index": [group.task.index] * size,
        "tokens": list_array(group.sequences(), pa.int32()),
        "prompt_length": [len(group.prompt)] * size,
        "completion_length": [len(c.tokens) for c in group.completions],
        "finish_reason": [c.finish_reason for c in group.completions],
        "reward": pa.array(rewards),
        "success": [e.success for e in group.evaluations],
        "advantage": pa.array(group_advantages(rewards)),
        "sketches": sketches,
        "token_logprobs": logprobs,
        "block": [block] * size,
        "finished_at": [finished_at] * size,
        "generation_seconds": [group.generation_seconds] * size,
        "reward_seconds": [group.reward_seconds] * size,
        "proof_seconds": [group.proof_seconds] * size,
    }
    return pa.RecordBatch.from_arrays(
        [
            column
            if isinstance(column, pa.Array)
            else pa.array(column, GROUP_SCHEMA.field(name).type)
            for name, column in columns.items()
        ],
        schema=GROUP_SCHEMA,
    )
