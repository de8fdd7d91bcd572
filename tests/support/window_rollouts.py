"""Rollouts of a window that break no rule, signed by a development key."""

import numpy as np
import pyarrow as pa
from bittensor_core import Keypair

from windrow.networks.grail.advantages import group_advantages
from windrow.networks.grail.commit import commit_binding, outer_challenge
from windrow.networks.grail.commitments import commitments_hash
from windrow.networks.grail.seeds import nonce
from windrow.networks.grail.submission_checks import SubmissionContext
from windrow.networks.grail.tokens import token_hash
from windrow.networks.grail.window_schema import FLAT_SCHEMA

KEY = Keypair.create_from_uri("//Alice")
RANDOMNESS = "ab" * 32
EOS = 2
PROMPT = np.arange(10, 17, dtype=np.int32)
CONTEXT = SubmissionContext(
    hotkey=KEY.ss58_address,
    window=61260,
    block_hash="0x" + "5e" * 32,
    randomness=RANDOMNESS,
    checkpoint_window=61200,
    vocab_size=600,
    max_context=200,
    eos_token_id=EOS,
    max_new_tokens=64,
)


def window_rollouts(groups: int = 2, seed: int = 0) -> pa.Table:
    """FLAT_SCHEMA rows of whole groups with completions of 32 to 64 tokens."""
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.6, 0.735], (groups, 16))
    rows = [
        rollout(rng, group, index, rewards[group]) for group in range(groups) for index in range(16)
    ]
    return signed(pa.Table.from_pylist(rows, FLAT_SCHEMA))


def rollout(
    rng: np.random.Generator, group: int, index: int, rewards: np.ndarray
) -> dict[str, object]:
    length = int(rng.integers(32, CONTEXT.max_new_tokens + 1))
    completion = rng.integers(3, CONTEXT.vocab_size, length)
    if length < CONTEXT.max_new_tokens:
        completion[-1] = EOS
    tokens = np.concatenate([PROMPT, completion])
    number = nonce(group, index)
    return {
        "window_start": CONTEXT.window,
        "block": CONTEXT.window + 3,
        "nonce": number,
        "block_hash": CONTEXT.block_hash,
        "randomness": RANDOMNESS,
        "use_drand": True,
        "rollout_group": group,
        "rollout_index": index,
        "total_in_group": 16,
        "checkpoint_window": CONTEXT.checkpoint_window,
        "tokens": tokens.tolist(),
        "sketches": (rng.integers(-3000, 3000, len(tokens)) % (2**31 - 1)).tolist(),
        "proof_version": "v5",
        "model_name": "tiny",
        "layer_index": -1,
        "commit_signature": "",
        "beacon_randomness": RANDOMNESS,
        "total_reward": float(rewards[index]),
        "advantage": float(group_advantages(rewards)[index]),
        "success": bool(rewards[index] > 0.5),
        "token_logprobs": [0.0] * len(PROMPT) + (-rng.random(length)).tolist(),
        "prompt_length": len(PROMPT),
        "completion_length": length,
        "timestamp": 1.76e9 + number,
        "challenge": outer_challenge(CONTEXT.block_hash, number),
        "hotkey": KEY.ss58_address,
        "signature": "",
    }


def signed(rollouts: pa.Table) -> pa.Table:
    """The rows with both signatures made anew for what they now hold."""
    rows = rollouts.to_pylist()
    digests = commitments_hash(rollouts["sketches"].combine_chunks())
    for row, digest in zip(rows, digests, strict=True):
        binding = commit_binding(
            token_hash(row["tokens"]),
            row["beacon_randomness"],
            row["model_name"],
            row["layer_index"],
            digest,
        )
        row["commit_signature"] = KEY.sign(binding).hex()
        row["signature"] = KEY.sign(row["challenge"].encode()).hex()
    return pa.Table.from_pylist(rows, FLAT_SCHEMA)


def altered(rollouts: pa.Table, row: int, **values: object) -> pa.Table:
    """The rows with some values of one of them replaced; signatures stay as they are."""
    rows = rollouts.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, FLAT_SCHEMA)
