"""The walk and the Freivalds vectors of the proposal "sgp1", as its vectors have them (§6.6).

Windrow's own attestation fills devices as the proposal says, but walks otherwise: a step of this
walk sums over all rows of a matrix, and whoever knows just some of them cannot tell a right
product from one that is mended in the others. See docs/attestation.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from windrow.kernels import sgp1
from windrow.kernels.exact_matmul import exact_product
from windrow.kernels.mersenne import Residues, reduce_words
from windrow.kernels.philox import Key, philox_words


@dataclass(frozen=True)
class Step:
    """One step: the matrix it took, its digest D_t, and the state X_t it led to."""

    index: int
    digest: bytes
    state: Tensor


def walk(state: Tensor, matrices: Sequence[Tensor], digest: bytes, steps: int) -> Iterator[Step]:
    """Steps 1 to T from X_0, nibbles int8 [m, n], and D_0, over matrices int8 [n, n]."""
    columns = torch.arange(state.shape[1], device=state.device)
    for step in range(1, steps + 1):
        index = sgp1.walk_index(digest, step, len(matrices))
        product = exact_product(state, matrices[index])
        state = (((product ^ (product >> 8)) & 15) - 8).to(torch.int8)
        trace = state[columns % len(state), columns].cpu().numpy().tobytes()
        digest = sgp1.walk_digest(digest, step, index, trace)
        yield Step(index, digest, state)


def freivalds_vector(key: Key, count: int) -> Residues:
    """rho: the first eight bytes of each block, modulo 2^61 - 1."""
    words = philox_words(key, 0, count).astype("<u4", copy=False)
    return reduce_words(words.view("<u8")[:, 0].astype(np.uint64))
