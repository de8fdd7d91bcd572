"""What a nonce is turned into, and how near it comes to the target (§9.4, §9.5).

`block_hash` is upper-case and `public_key` lower-case hexadecimal: case matters.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow.kernels.decoder import DecoderShape
from windrow.kernels.hashed_streams import generator
from windrow.kernels.tails import cap_distance, cap_fraction

R_TARGET: Final = 1.4013564660458173
"""The deployed client's, with 8196 logits."""


def nonce_draws(
    block_hash: str, public_key: str, nonce: int, shape: DecoderShape
) -> NDArray[np.float64]:
    """The standard normal numbers of one nonce, as they are drawn: float64[seq, dim]."""
    stream = generator(f"{block_hash}_{public_key}_nonce{nonce}", 4)
    return stream.standard_normal((shape.seq_len, shape.dim))


def nonce_input(
    block_hash: str, public_key: str, nonce: int, shape: DecoderShape
) -> NDArray[np.float16]:
    """What the decoder is fed for one nonce: float16[seq, dim].

    Rounded twice, to float32 first, as the weights are and as PyTorch converts: one number in about
    13,000 differs from the draw rounded once.
    """
    draws = nonce_draws(block_hash, public_key, nonce, shape)
    return draws.astype(np.float32).astype(np.float16)


def nonce_permutation(
    block_hash: str, public_key: str, nonce: int, vocab_size: int
) -> NDArray[np.int64]:
    """The order the logits of one nonce are read in: int64[vocab]."""
    stream = generator(f"{block_hash}_{public_key}_nonce_{nonce}_permutations", 1)
    return stream.permutation(vocab_size)


def block_target(block_hash: str, vocab_size: int) -> NDArray[np.float64]:
    """The unit vector of a block, the same for everybody: float64[vocab]."""
    drawn = generator(f"{block_hash}_target", 1).standard_normal(vocab_size)
    return drawn / np.linalg.norm(drawn)


def nonce_distances(
    block_hash: str,
    public_key: str,
    nonces: Sequence[int],
    logits: NDArray[np.float32],
    target: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Distance of each nonce's direction to the target: float64[B] of logits [B, vocab].

    NaN where logits are.
    """
    distances = np.empty(len(nonces))
    for row, nonce in enumerate(nonces):
        order = nonce_permutation(block_hash, public_key, nonce, len(target))
        output = logits[row][order].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            distances[row] = np.linalg.norm(output / np.linalg.norm(output) - target)
    return distances


def success_probability(r_target: float, vocab_size: int) -> float:
    """Share of nonces below a distance, if outputs are uniform on the sphere."""
    return cap_fraction(r_target, vocab_size)


def r_target_for(probability: float, vocab_size: int) -> float:
    """The distance that this share of nonces is below."""
    return cap_distance(probability, vocab_size)
