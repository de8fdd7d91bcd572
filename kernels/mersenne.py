"""Products with vectors modulo the Mersenne prime 2^61 - 1, out of exact integer products.

A vector modulo p is split into eight signed bytes an entry, so that int8 matrices meet it in the
same int8 products as everything else; multiplying by a power of two modulo p is a rotation.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BITS: Final = 61
PRIME: Final = (1 << BITS) - 1
DIGITS: Final = 8

_PRIME: Final = np.uint64(PRIME)
_LIMB_BITS: Final = 13
_LIMBS: Final = -(-BITS // _LIMB_BITS)
Residues = NDArray[np.uint64]


def reduce_words(words: NDArray[np.uint64]) -> Residues:
    """Words modulo p."""
    return words % _PRIME


def digits(vector: Residues) -> NDArray[np.int8]:
    """Signed bytes [n, 8], least first, that sum to a vector [n] of residues."""
    # Adding 128 to every byte carries just where a byte is more than a signed one holds.
    lifted = vector + np.uint64(0x8080808080808080)
    little = lifted.astype("<u8", copy=False).view(np.uint8).reshape(-1, DIGITS)
    return (little.astype(np.int16) - 128).astype(np.int8)


def from_digits(sums: NDArray[np.signedinteger]) -> Residues:
    """Residues [...] of sums over digits [..., 8]: what the products with each column make."""
    total = np.zeros(sums.shape[:-1], np.uint64)
    for place in range(DIGITS):
        total = _add(total, _times_power(_residues(sums[..., place]), 8 * place))
    return total


def dot(rows: Tensor, vector: Residues) -> Residues:
    """rows @ vector modulo p: integers [..., n] of at most 2^24 each, n at most 2^14.

    In float64 limbs of 13 bits: every sum stays below 2^52.
    """
    flat = rows.reshape(-1, rows.shape[-1]).to(torch.float64)
    mask = np.uint64((1 << _LIMB_BITS) - 1)
    limbs = np.stack(
        [(vector >> np.uint64(_LIMB_BITS * place)) & mask for place in range(_LIMBS)], axis=1
    )
    sums = (flat @ torch.from_numpy(limbs.astype(np.float64))).to(torch.int64).numpy()
    total = np.zeros(len(sums), np.uint64)
    for place in range(_LIMBS):
        total = _add(total, _times_power(_residues(sums[:, place]), _LIMB_BITS * place))
    return total.reshape(rows.shape[:-1])


def _residues(values: NDArray[np.signedinteger]) -> Residues:
    return np.mod(np.asarray(values, np.int64), PRIME).astype(np.uint64)


def _times_power(values: Residues, power: int) -> Residues:
    """values * 2^power modulo p."""
    power %= BITS
    up, down = np.uint64(power), np.uint64(BITS - power)
    return ((values << up) & _PRIME) | (values >> down)


def _add(left: Residues, right: Residues) -> Residues:
    """The sum modulo p of residues, either of which may be p itself."""
    return (left + right) % _PRIME
