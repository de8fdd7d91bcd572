"""Products with random vectors modulo the Mersenne prime 2^61 - 1, out of exact products.

A vector of 64-bit numbers is eight columns of signed bytes, so a matrix meets it in the same int8
products as everything else, and eight sums a row fold into one residue. Multiplying by a power of
two modulo p is a rotation.
"""

from typing import Any, Final

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


def from_digits(sums: NDArray[np.signedinteger[Any]]) -> Residues:
    """sum_d sums[..., d] * 256^d modulo p, uint64 [...]: sums of any sign [..., 8]."""
    return _fold(sums, DIGITS, 8)


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
    return _fold(sums, _LIMBS, _LIMB_BITS).reshape(rows.shape[:-1])


def _fold(sums: NDArray[np.signedinteger[Any]], places: int, bits: int) -> Residues:
    total = np.zeros(sums.shape[:-1], np.uint64)
    for place in range(places):
        residues = np.mod(np.asarray(sums[..., place], np.int64), PRIME).astype(np.uint64)
        total = (total + _times_power(residues, bits * place)) % _PRIME
    return total


def _times_power(values: Residues, power: int) -> Residues:
    """values * 2^power modulo p; power below 61."""
    up, down = np.uint64(power), np.uint64(BITS - power)
    return ((values << up) & _PRIME) | (values >> down)
