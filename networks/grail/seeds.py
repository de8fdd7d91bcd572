"""Problem seeds and nonces (grail-protocol §3.5, §3.6)."""

import hashlib

from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP


def problem_seed(hotkey: str, block_hash: str, group: int | float | str | None) -> int:
    """The 32-bit seed that selects a group's problem (§3.5).

    block_hash: hash of the window's first block as text, ``0x`` included. group: the problem's
    index in the window; whatever ``int()`` refuses counts as 0.
    """
    text = f"seed|{hotkey}:{block_hash}:{_index(group)}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big")


def nonce(group: int, rollout_index: int) -> int:
    """The nonce of one rollout, unique in its window (§3.6)."""
    return group * ROLLOUTS_PER_GROUP + rollout_index


def _index(group: int | float | str | None) -> int:
    if group is None:
        return 0
    try:
        return int(group)
    except (ValueError, OverflowError):
        return 0
