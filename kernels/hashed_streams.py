"""Random numbers anyone can draw again from a text: numpy's PCG64 seeded by SHA-256, and hashes.

`generator` is proof of compute v1 of Gonka (gonka §9.1); the `murmur_*` functions are those of v2
(§12.2), float32 throughout.
"""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_LEAST_UNIFORM: Final = np.float32(1e-10)


def entropy(text: str, hashes: int) -> NDArray[np.uint32]:
    """SHA-256 of text_0, text_1, ... as little-endian words: uint32[8 * hashes]."""
    digests = (hashlib.sha256(f"{text}_{index}".encode()).digest() for index in range(hashes))
    return np.frombuffer(b"".join(digests), "<u4").astype(np.uint32)


def generator(text: str, hashes: int) -> np.random.Generator:
    """A PCG64 generator seeded by a text."""
    words = [int(word) for word in entropy(text, hashes)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def murmur(keys: NDArray[np.uint32], seed: int) -> NDArray[np.uint32]:
    """MurmurHash3 x86-32 of 4-byte keys, without the length in the finaliser; any shape."""
    value = keys.astype(np.uint32) * np.uint32(0xCC9E2D51)
    value = _rotate(value, 15) * np.uint32(0x1B873593)
    value ^= np.uint32(seed)
    value = _rotate(value, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    value ^= value >> np.uint32(16)
    value *= np.uint32(0x85EBCA6B)
    value ^= value >> np.uint32(13)
    value *= np.uint32(0xC2B2AE35)
    value ^= value >> np.uint32(16)
    return value


def murmur_uniform(seed: int, size: int) -> NDArray[np.float32]:
    """float32[size] from 0 to 1."""
    hashes = murmur(np.arange(size, dtype=np.uint32), seed)
    return hashes.astype(np.float32) / np.float32(2**32)


def murmur_normal(seed: int, size: int) -> NDArray[np.float32]:
    """float32[size], standard normal: Box-Muller, all cosines before all sines."""
    pairs = (size + 1) // 2
    uniform = murmur_uniform(seed, 2 * pairs)
    radius = np.sqrt(np.float32(-2) * np.log(np.maximum(uniform[:pairs], _LEAST_UNIFORM)))
    angle = np.float32(2 * np.pi) * uniform[pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal[:size].astype(np.float32, copy=False)


def _rotate(value: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    return (value << np.uint32(bits)) | (value >> np.uint32(32 - bits))
