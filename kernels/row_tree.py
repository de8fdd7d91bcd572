"""A hash tree over the rows of a matrix: one digest stands for all of it, any row can be opened.

compute-subnet §7.5: SHA-256 of each row's bytes, parents over both children, the last of an odd
number paired with itself. Neither the depth nor the number of rows is in the root, so whoever
opens a row must know both.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def row_hashes(matrix: NDArray[np.generic]) -> list[bytes]:
    """SHA-256 of every row's bytes, little-endian. matrix: [N, M]."""
    rows = np.ascontiguousarray(matrix)
    if rows.dtype.byteorder == ">":
        rows = rows.astype(rows.dtype.newbyteorder("<"))
    return [hashlib.sha256(row.data).digest() for row in rows]


def tree_levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Every level from the leaves to the root; leaves: at least one."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append(
            [
                _parent(below[index], below[min(index + 1, len(below) - 1)])
                for index in range(0, len(below), 2)
            ]
        )
    return levels


def row_proof(levels: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """The sibling at every level, below the root; a node without one is its own."""
    proof = []
    for level in levels[:-1]:
        sibling = index ^ 1
        proof.append(level[sibling] if sibling < len(level) else level[index])
        index //= 2
    return proof


def root_from(leaf: bytes, index: int, proof: Sequence[bytes]) -> bytes:
    """The root that a leaf at an index and its siblings give."""
    for sibling in proof:
        leaf = _parent(leaf, sibling) if index % 2 == 0 else _parent(sibling, leaf)
        index //= 2
    return leaf


def proves_row(
    leaf: bytes, index: int, proof: Sequence[bytes], root: bytes, *, leaves: int
) -> bool:
    """Whether a leaf is number `index` of a tree of so many leaves, with just the siblings due."""
    if not 0 <= index < leaves or len(proof) != (leaves - 1).bit_length():
        return False
    return root_from(leaf, index, proof) == root


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(left + right).digest()
