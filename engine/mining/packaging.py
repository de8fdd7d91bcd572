"""Rollouts and proofs become the signed rows of a window file."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow import WindrowError
from windrow.engine.ports import Sign
from windrow.networks.grail.commit import commit_binding, outer_challenge
from windrow.networks.grail.commitments import commitments_hash
from windrow.networks.grail.constants import LAYER_INDEX, PROOF_VERSION, ROLLOUTS_PER_GROUP
from windrow.networks.grail.tokens import token_hash
from windrow.networks.grail.window_schema import FLAT_SCHEMA


class UnmatchedProofs(WindrowError):
    """Rollouts without a proof of exactly their tokens."""


@dataclass(frozen=True)
class Origin:
    """What every row of a window file repeats. randomness: R_m, plain hex (§2)."""

    window_start: int
    block_hash: str
    randomness: str
    use_drand: bool
    checkpoint_window: int
    model_name: str
    hotkey: str


def token_hashes(tokens: pa.ListArray) -> list[bytes]:
    """Token hash of every row (§3.3). tokens: list<int32>."""
    values = tokens.values.to_numpy(zero_copy_only=False)
    offsets = tokens.offsets.to_numpy()
    return [token_hash(values[a:b]) for a, b in pairwise(offsets)]


def package(rollouts: pa.Table, proofs: pa.Table, origin: Origin, sign: Sign) -> pa.Table:
    """The rows of a window file, FLAT_SCHEMA, in the order of `rollouts`, signed (§5, §8.2).

    rollouts, proofs: the lake's datasets of these names for one window. Every rollout needs the
    proof of its nonce, made for the same tokens. Raises UnmatchedProofs.
    """
    proofs = _aligned(rollouts, proofs)
    tokens = rollouts["tokens"].combine_chunks()
    hashes = token_hashes(tokens)
    claimed = proofs["tokens_hash"].to_pylist()
    stale = [
        nonce
        for nonce, a, b in zip(rollouts["nonce"].to_pylist(), hashes, claimed, strict=True)
        if a.hex() != b
    ]
    if stale:
        raise UnmatchedProofs(
            f"window {origin.window_start}: the proofs of {len(stale)} rollouts (first nonce "
            f"{stale[0]}) were made for other tokens; materialize proofs again"
        )
    sketches = proofs["sketches"].combine_chunks().cast(FLAT_SCHEMA.field("sketches").type)
    commit_signatures = [
        sign(
            commit_binding(
                tokens_hash, origin.randomness, origin.model_name, LAYER_INDEX, sketches_hash
            )
        ).hex()
        for tokens_hash, sketches_hash in zip(hashes, commitments_hash(sketches), strict=True)
    ]
    challenges = [outer_challenge(origin.block_hash, n) for n in rollouts["nonce"].to_pylist()]
    size = rollouts.num_rows
    constants = {
        "window_start": origin.window_start,
        "block_hash": origin.block_hash,
        "randomness": origin.randomness,
        "use_drand": origin.use_drand,
        "total_in_group": ROLLOUTS_PER_GROUP,
        "checkpoint_window": origin.checkpoint_window,
        "proof_version": PROOF_VERSION,
        "model_name": origin.model_name,
        "layer_index": LAYER_INDEX,
        "beacon_randomness": origin.randomness,
        "hotkey": origin.hotkey,
    }
    columns = {
        "block": rollouts["block"],
        "nonce": rollouts["nonce"],
        "rollout_group": rollouts["rollout_group"],
        "rollout_index": rollouts["rollout_index"],
        "tokens": tokens,
        "sketches": sketches,
        "commit_signature": pa.array(commit_signatures, pa.string()),
        "total_reward": rollouts["reward"],
        "advantage": rollouts["advantage"],
        "success": rollouts["success"],
        "token_logprobs": proofs["token_logprobs"],
        "prompt_length": rollouts["prompt_length"],
        "completion_length": rollouts["completion_length"],
        "timestamp": rollouts["finished_at"],
        "challenge": pa.array(challenges, pa.string()),
        "signature": pa.array([sign(text.encode()).hex() for text in challenges], pa.string()),
    }
    return pa.table(
        {
            field.name: (
                columns[field.name].cast(field.type)
                if field.name in columns
                else pa.array([constants[field.name]] * size, field.type)
            )
            for field in FLAT_SCHEMA
        }
    )


def _aligned(rollouts: pa.Table, proofs: pa.Table) -> pa.Table:
    """The proofs in the rollouts' order."""
    positions = pc.index_in(rollouts["nonce"], value_set=proofs["nonce"].combine_chunks())
    if positions.null_count:
        missing = np.flatnonzero(pc.is_null(positions).to_numpy())
        first = rollouts["nonce"][int(missing[0])].as_py()
        raise UnmatchedProofs(
            f"{len(missing)} rollouts (first nonce {first}) have no proof; materialize proofs for "
            "this window, then its submission"
        )
    return proofs.take(positions)
