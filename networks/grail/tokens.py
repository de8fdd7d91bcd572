"""Token sequences: their hash, and whether a model can read them (grail-protocol §3.3, C2)."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError

DEFAULT_CONTEXT: Final = 16384

# Names model configurations use, in the order the network tries them (grail-validation §8.2).
VOCAB_NAMES: Final = ("vocab_size", "n_vocab", "vocabulary_size")
CONTEXT_NAMES: Final = (
    "max_position_embeddings",
    "max_seq_len",
    "n_positions",
    "seq_length",
    "max_sequence_length",
    "model_max_length",
)

Tokens = NDArray[np.integer[Any]] | Sequence[int]


class MalformedTokens(WindrowError):
    """A token sequence holds something that is not an integer."""


def token_hash(tokens: Tokens) -> bytes:
    """SHA-256 of the ids as big-endian 32-bit words, each id taken modulo 2^32 (§3.3).

    tokens: integers [L], prompt and completion. Raises MalformedTokens.
    """
    return hashlib.sha256(_words(tokens).astype(">u4").tobytes()).digest()


def tokens_valid(tokens: Tokens, vocabulary: int | None, context: int = DEFAULT_CONTEXT) -> bool:
    """Whether every id is an integer in the vocabulary and the sequence fits the context (C2).

    vocabulary None: ids have no upper bound. An empty sequence is not valid.
    """
    ids = np.asarray(tokens)
    if ids.size == 0 or ids.ndim != 1 or ids.dtype.kind not in "iub" or ids.size > context:
        return False
    return bool(ids.min() >= 0 and (vocabulary is None or ids.max() < vocabulary))


def context_length(config: Mapping[str, object]) -> int:
    """Longest sequence a model configuration allows (C2); 16384 where it does not say."""
    return _first_positive(config, CONTEXT_NAMES) or DEFAULT_CONTEXT


def vocab_size(config: Mapping[str, object]) -> int | None:
    """Vocabulary size of a model configuration or of the text model in it; None if not said."""
    size = _first_positive(config, VOCAB_NAMES)
    nested = config.get("text_config")
    if size is None and isinstance(nested, Mapping):
        return _first_positive(nested, VOCAB_NAMES)
    return size


def _first_positive(config: Mapping[str, object], names: Sequence[str]) -> int | None:
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and v > 0), None)


def _words(tokens: Tokens) -> NDArray[np.uint32]:
    ids = np.asarray(tokens)
    if ids.size == 0:
        return np.empty(0, np.uint32)
    if ids.ndim == 1 and ids.dtype.kind in "iub":
        return ids.astype(np.uint32)
    if not isinstance(tokens, np.ndarray) and all(isinstance(token, int) for token in tokens):
        # Ids that no one type of numpy's holds: only a forged sequence has them, but its hash is
        # defined.
        return np.array([token & 0xFFFFFFFF for token in tokens], np.uint32)
    raise MalformedTokens(f"token ids must be a flat sequence of integers, not {ids.dtype} values")
