"""What validators look at: miners, groups of a file, and digests of completions (§11.3, §11.6)."""

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP

SPOT_CHECK_RATE: Final = 0.10
MAX_CHECKED_GROUPS: Final = 64 // ROLLOUTS_PER_GROUP
CHECK_ALL_ROWS: Final = 20
MINER_RATE: Final = 0.25
MIN_MINERS: Final = 2
MAX_MINERS: Final = 35


def commit_digest(commit: object) -> bytes:
    """SHA-256 of a commit object as compact JSON with sorted keys, 32 bytes (§11.3)."""
    text = json.dumps(commit, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def sampled_rows(
    groups: NDArray[np.int64],
    digest: Callable[[int], bytes],
    hotkey: str,
    randomness: str,
) -> NDArray[np.int64]:
    """The rows a validator checks, ascending (§11.3).

    groups: int64 [n], rollout_group of every row in file order. digest: row -> commit_digest of
    its commit, asked for only when groups are drawn. randomness: R_v.
    """
    if len(groups) <= CHECK_ALL_ROWS:
        return np.arange(len(groups))
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(row)
    digests = {
        group: hashlib.sha256(b"".join(map(digest, rows))).digest()
        for group, rows in members.items()
    }
    ordered = sorted(members, key=digests.__getitem__)
    count = group_sample_size(len(ordered))
    seed = hashlib.sha256(f"{hotkey}:{randomness}".encode("utf-8", "surrogatepass")).digest()
    rng = random.Random(int.from_bytes(seed[:8], "big"))  # noqa: S311 - the protocol names it
    return np.array(sorted(row for g in rng.sample(ordered, count) for row in members[g]))


def group_sample_size(groups: int) -> int:
    """How many of a file's groups a validator checks where it samples them (§11.3)."""
    return min(max(1, int(groups * SPOT_CHECK_RATE)), MAX_CHECKED_GROUPS)


def miner_sample_size(
    miners: int, rate: float = MINER_RATE, least: int = MIN_MINERS, most: int | None = MAX_MINERS
) -> int:
    """How many of the eligible miners a validator looks at (grail-validation §4.3)."""
    size = max(least, math.ceil(miners * rate))
    return max(0, min(miners, size if most is None else min(size, most)))


def selected_miners(
    hotkeys: Sequence[str],
    block_hash: str,
    recent_selections: Mapping[str, int],
    size: int | None = None,
) -> list[str]:
    """The miners a validator looks at in a window, least recently chosen first (§11.3).

    block_hash: of the window's first block. recent_selections: how often each was chosen lately.
    size: how many; None for the network's `miner_sample_size`.
    """
    count = miner_sample_size(len(hotkeys)) if size is None else size

    def rank(hotkey: str) -> tuple[int, bytes]:
        text = f"{block_hash}:{hotkey}".encode("utf-8", "surrogatepass")
        return recent_selections.get(hotkey, 0), hashlib.sha256(text).digest()[:8]

    return sorted(hotkeys, key=rank)[:count]


def completion_digests(tokens: pa.ListArray, prompt_lengths: pa.Array) -> list[str | None]:
    """SHA-256 hex of every row's completion ids as compact JSON (§11.6).

    tokens: list<int32> [n], prompt and completion. prompt_lengths: integers [n]; null counts as 0.
    None for a row without tokens. Equal digests are equal completions: validators count them to
    find duplicates in a file and copies between miners.
    """
    lengths = pc.fill_null(pc.list_value_length(tokens), 0).to_numpy(zero_copy_only=False)
    prompts = pc.fill_null(prompt_lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    # Slice semantics of tokens[prompt:]: a negative start counts from the end.
    starts = np.where(prompts < 0, np.maximum(prompts + lengths, 0), np.minimum(prompts, lengths))
    values = tokens.flatten()
    ends = np.cumsum(lengths)
    kept = np.arange(len(values)) >= np.repeat(ends - lengths + starts, lengths)
    words = pc.fill_null(pc.cast(values.filter(pa.array(kept)), pa.string()), "null")
    offsets = np.concatenate([[0], np.cumsum(lengths - starts)]).astype(np.int32)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), ",")
    return [
        hashlib.sha256(b"[" + text.as_buffer().to_pybytes() + b"]").hexdigest() if length else None
        for text, length in zip(joined, lengths, strict=True)
    ]
