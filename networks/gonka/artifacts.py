"""Proof of compute v2: what a served model's last hidden states are turned into (§12.2).

The network takes the picked coordinates in an order that depends on its backend; here it is one of
two that are defined. Which of them a deployed network has is to be seen from real artifacts.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.kernels.hashed_streams import murmur, murmur_normal

EPSILON: Final = np.float32(1e-8)
K_DIM: Final = 12

PickOrder = Literal["index", "score"]


class BadArtifact(WindrowError):
    """Text that is not the vector of a nonce."""


def text_seed(text: str) -> int:
    """Seed out of a text: the first 32 bits of its hash."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def nonce_seed(block_hash: str, public_key: str, nonce: int) -> int:
    """The seed of a nonce's inputs. 32 bits: among 77,000 nonces two are as likely as not equal."""
    return text_seed(f"{block_hash}_{public_key}_nonce{nonce}")


def nonce_inputs(
    block_hash: str, public_key: str, nonce: int, size: int, *, stronger: bool = False
) -> NDArray[np.float32]:
    """Embeddings of one nonce, float32[size], before they are cast to the model's type.

    stronger: `poc_stronger_rng`, all 256 bits of the hash.
    """
    if not stronger:
        return murmur_normal(nonce_seed(block_hash, public_key, nonce), size)
    digest = hashlib.sha256(f"{block_hash}_{public_key}_nonce{nonce}".encode()).digest()
    segment = -(-size // 8)
    seeds = (int.from_bytes(digest[4 * i : 4 * i + 4], "big") for i in range(8))
    lengths = (max(0, min(segment, size - i * segment)) for i in range(8))
    drawn = (murmur_normal(seed, length) for seed, length in zip(seeds, lengths, strict=True))
    return np.concatenate(list(drawn))


def layer_reflection(block_hash: str, layer: int, hidden_size: int) -> NDArray[np.float32]:
    """The unit vector that hidden state and residual are reflected by after a decoder layer."""
    drawn = murmur_normal(text_seed(f"{block_hash}_layer_{layer}_householder"), hidden_size)
    return drawn / np.linalg.norm(drawn)


def reflected(x: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float32]:
    """x - 2 (v . x) v along the last dimension."""
    return x - np.float32(2) * (x @ v)[..., None] * v


def picked(
    block_hash: str,
    public_key: str,
    nonce: int,
    hidden_size: int,
    k: int = K_DIM,
    *,
    order: PickOrder = "index",
) -> NDArray[np.int64]:
    """The k coordinates of smallest hash, by index or by hash."""
    seed = text_seed(f"{block_hash}_{public_key}_nonce_{nonce}_pick_{k}")
    scores = murmur(np.arange(hidden_size, dtype=np.uint32), seed)
    smallest = np.argsort(scores, kind="stable")[:k]
    return np.sort(smallest) if order == "index" else smallest


def rotated(
    block_hash: str, public_key: str, nonce: int, x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """float32[k] turned by the nonce's k - 1 reflections."""
    k = len(x)
    for j in range(k - 1):
        text = f"{block_hash}_{public_key}_nonce_{nonce}_haar_hh_{k}_{j}"
        v = murmur_normal(text_seed(text), k)
        x = reflected(x, v / np.linalg.norm(v))
    return x


def artifact(
    block_hash: str,
    public_key: str,
    nonce: int,
    last_hidden: NDArray[np.float32],
    k: int = K_DIM,
    *,
    order: PickOrder = "index",
) -> NDArray[np.float16] | None:
    """The published vector, float16[k], of a nonce's last hidden state; None where that has NaN."""
    if np.isnan(last_hidden).any():
        return None
    x = last_hidden / (np.linalg.norm(last_hidden) + EPSILON)
    x = x[picked(block_hash, public_key, nonce, len(x), k, order=order)]
    x = rotated(block_hash, public_key, nonce, x)
    return (x / (np.linalg.norm(x) + EPSILON)).astype(np.float16)


def encode(vector: NDArray[np.float16]) -> str:
    """Little-endian bytes in Base64."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def decode(text: str, k: int = K_DIM) -> NDArray[np.float16]:
    """float16[k]. Raises BadArtifact for another length, no Base64, or what is not finite."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadArtifact(f"{text[:40]!r} is no Base64") from error
    if len(data) != 2 * k:
        raise BadArtifact(f"{len(data)} bytes are no vector of {k} float16")
    vector = np.frombuffer(data, "<f2").astype(np.float16)
    if not np.isfinite(vector).all():
        raise BadArtifact("a component is not finite")
    return vector


def network_mismatches(
    nonces: Sequence[int],
    computed: Sequence[str | None],
    received: Sequence[str],
    dist_threshold: float,
    k: int = K_DIM,
) -> list[int]:
    """Nonces whose vectors differ, as the network sees it (§12.3).

    An empty text and a nonce the validator has no vector of are passed over, though still counted
    among those compared.
    """
    rows = zip(nonces, computed, received, strict=True)
    return [
        nonce
        for nonce, mine, theirs in rows
        if mine is not None and theirs and not _near(mine, theirs, dist_threshold, k)
    ]


def strict_mismatches(
    nonces: Sequence[int],
    computed: Sequence[str],
    received: Sequence[str],
    dist_threshold: float,
    k: int = K_DIM,
) -> list[int]:
    """Nonces whose vectors differ or are not there.

    The validator must have a vector of its own for each: one it cannot compute is no evidence, and
    is left out of what is compared before.
    """
    rows = zip(nonces, computed, received, strict=True)
    return [nonce for nonce, mine, theirs in rows if not _near(mine, theirs, dist_threshold, k)]


def _near(mine: str, theirs: str, dist_threshold: float, k: int) -> bool:
    try:
        received = decode(theirs, k)
    except BadArtifact:
        return False
    difference = decode(mine, k).astype(np.float64) - received.astype(np.float64)
    return bool(np.linalg.norm(difference) <= dist_threshold)
