"""The asset checks of a window file, and what they are held against."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windrow.engine.mining.packaging import Origin
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.submission_checks import SubmissionContext, check_submission
from windrow.networks.grail.window_schema import IrregularText
from windrow.resources.checkpoints.cache import VerifiedCheckpoint
from windrow.resources.inference import Inference

CHECKS = {
    "file_structure": "owner, window, block hash, nonces, group sizes, size of the file",
    "rollout_schema": "types, lengths, token ids and context of every rollout",
    "prompts": "every rollout begins with its group's canonical prompt",
    "signatures": "the row's and the commit's sr25519 signatures, sketches in range",
    "termination": "every completion ends with EOS or is exactly as long as allowed",
    "logprobs": "one finite log-prob a token",
    "rewards": "rewards, evaluated again from the completions",
    "advantages": "advantages follow from the rewards and sum to zero",
    "identity": "nonce, challenge, hotkey and randomness are the window's own",
    "checkpoint_current": "validators will use the checkpoint this file was made with",
}
"""Name and meaning of every blocking asset check, in the order the UI lists them."""

_RULES = {
    "schema_valid": "rollout_schema",
    "tokens_valid": "rollout_schema",
    "env_prompt_valid": "prompts",
    "outer_signature": "signatures",
    "proof_valid": "signatures",
    "sketch_range": "signatures",
    "termination_valid": "termination",
    "logprobs_valid": "logprobs",
    "logprobs_finite": "logprobs",
    "reward_valid": "rewards",
    "group_advantages": "advantages",
    "nonce": "identity",
    "total_in_group": "identity",
    "row_hotkey": "identity",
    "challenge": "identity",
    "row_randomness": "identity",
    "beacon_randomness": "identity",
    "checkpoint_window": "checkpoint_current",
}
"""Which asset check a rule belongs to; every other rule is one of the file's structure."""

SHOWN = 20
"""Violations listed in a check's metadata; their number is always given."""


@dataclass(frozen=True)
class Reference:
    """What a window file must agree with, derived again from seeds and completions.

    rewards: float64 by nonce.
    """

    context: SubmissionContext
    prompts: dict[int, NDArray[np.int32]]
    rewards: dict[int, float]

    @classmethod
    def of(
        cls,
        flat: pa.Table,
        origin: Origin,
        checkpoint: VerifiedCheckpoint,
        inference: Inference,
    ) -> "Reference":
        """Derive prompts from group numbers and rewards from completions (§3.5, §12)."""
        lexicon = inference.lexicon(checkpoint)
        environment = inference.environment(checkpoint)
        prompts, rewards = {}, {}
        for group in flat["rollout_group"].unique().to_pylist():
            rows = flat.filter(pc.equal(flat["rollout_group"], group))
            task = environment.task(problem_seed(origin.hotkey, origin.block_hash, group))
            prompts[group] = environment.prompt(task)
            tokens = rows["tokens"].combine_chunks()
            completions = [
                tokens[row].values.to_numpy()[length:]
                for row, length in enumerate(rows["prompt_length"].to_pylist())
            ]
            evaluations = environment.evaluate(task, completions)
            nonces = rows["nonce"].to_pylist()
            rewards.update({n: e.reward for n, e in zip(nonces, evaluations, strict=True)})
        context = SubmissionContext(
            hotkey=origin.hotkey,
            window=origin.window_start,
            block_hash=origin.block_hash,
            randomness=origin.randomness,
            checkpoint_window=origin.checkpoint_window,
            vocab_size=lexicon.vocab_size,
            max_context=lexicon.max_context,
            eos_token_id=lexicon.eos_token_id,
            max_new_tokens=checkpoint.metadata.policy.max_new_tokens,
        )
        return cls(context, prompts, rewards)

    def violations(self, flat: pa.Table, irregular: Sequence[IrregularText] = ()) -> pa.Table:
        """Every rule the rows break, VIOLATION_SCHEMA."""
        rewards = [self.rewards[nonce] for nonce in flat["nonce"].to_pylist()]
        return check_submission(
            flat,
            self.context,
            prompts=self.prompts,
            rewards=np.array(rewards, np.float64),
            irregular=irregular,
        )


def check_results(violations: pa.Table, made_with: int, current: int) -> list[dg.AssetCheckResult]:
    """One result for every name in CHECKS.

    made_with, current: the checkpoint window of the file, and the one §9.2 selects by now.
    """
    by_check: dict[str, list[dict[str, object]]] = {name: [] for name in CHECKS}
    for violation in violations.to_pylist():
        by_check[_RULES.get(violation["check"], "file_structure")].append(violation)
    if current != made_with:
        by_check["checkpoint_current"].append(
            {
                "check": "checkpoint_window",
                "reason": f"checkpoint {current} became ready after {made_with} was chosen: "
                "validators would refuse every rollout; mine the window again",
            }
        )
    return [_result(name, found) for name, found in by_check.items()]


def _result(name: str, found: list[dict[str, object]]) -> dg.AssetCheckResult:
    shown = [
        {key: value for key, value in violation.items() if value is not None}
        for violation in found[:SHOWN]
    ]
    return dg.AssetCheckResult(
        check_name=name,
        passed=not found,
        metadata={"violations": len(found), "first": dg.MetadataValue.json(shown)},
        description=str(found[0]["reason"]) if found else CHECKS[name],
    )
