"""Token sequences: their hash, and whether a model can read them (grail-protocol §3.3, C2)."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError

DEFAULT_CONTEXT: Final = 16384

Tokens = NDArray[np.integer[Any]] | Sequence[int]


class MalformedTokens(WindrowError):
    """A token sequence holds something that is not an integer."""


def token_hash(tokens: Tokens) -> bytes:
    """SHA-256 of the ids as big-endian 32-bit words, each id taken modulo 2^32 (§3.3).

    tokens: integers [L], prompt and completion. Raises MalformedTokens.
    """
    return hashlib.sha256(_words(tokens).astype(">u4").tobytes()).digest()


def tokens_valid(tokens: Tokens, vocab_size: int | None, context: int = DEFAULT_CONTEXT) -> bool:
    """Whether every id is an integer in the vocabulary and the sequence fits the context (C2).

    vocab_size None: ids have no upper bound. An empty sequence is not valid.
    """
    ids = np.asarray(tokens)
    if ids.size == 0 or ids.ndim != 1 or ids.dtype.kind not in "iub" or ids.size > context:
        return False
    return bool(ids.min() >= 0 and (vocab_size is None or ids.max() < vocab_size))


def context_length(config: Mapping[str, object]) -> int:
    """Longest sequence a model configuration allows (C2); 16384 where it does not say."""
    length = config.get("max_position_embeddings")
    return length if isinstance(length, int) and length > 0 else DEFAULT_CONTEXT


def _words(tokens: Tokens) -> NDArray[np.uint32]:
    ids = np.asarray(tokens)
    if ids.size == 0:
        return np.empty(0, np.uint32)
    if ids.ndim == 1 and ids.dtype.kind in "iub":
        return ids.astype(np.uint32)
    if ids.ndim == 1 and ids.dtype.kind == "O" and all(isinstance(t, int) for t in ids):
        # Ids beyond 64 bits: only a forged sequence holds one, but its hash is defined.
        return np.array([t & 0xFFFFFFFF for t in ids], np.uint32)
    raise MalformedTokens(f"token ids must be a flat sequence of integers, not {ids.dtype} values")
