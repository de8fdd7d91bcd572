"""The commitment of proof of compute v2: a sparse Merkle tree that also counts its leaves (§12.4).

A nonce's bits, highest first, say where its leaf is. A proof lists siblings from the root down.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from windrow import WindrowError

LEAST_DEPTH: Final = 24
MOST_DEPTH: Final = 32
"""A leaf holds its nonce in 32 bits."""


class BadTree(WindrowError):
    """Leaves that make no tree, or an index that is in none."""


@dataclass(frozen=True)
class Node:
    """What a tree, or a part of one, comes to."""

    hash: bytes
    count: int

    def to_bytes(self) -> bytes:
        """As a proof carries it: 36 bytes."""
        return self.hash + self.count.to_bytes(4, "little")


@dataclass(frozen=True)
class Opening:
    """One leaf with its siblings, root first."""

    index: int
    nonce: int
    vector: bytes
    siblings: Sequence[Node]


def leaf(nonce: int, vector: bytes) -> Node:
    """The leaf of one nonce. Raises BadTree for a nonce that takes more than 32 bits."""
    if not 0 <= nonce < 2**MOST_DEPTH:
        raise BadTree(f"nonce {nonce} does not fit into 32 bits")
    return Node(_hash(b"\0" + nonce.to_bytes(4, "little") + vector), 1)


def joined(left: Node, right: Node) -> Node:
    """The parent of two nodes."""
    count = left.count + right.count
    return Node(_hash(b"\1" + left.hash + right.hash + count.to_bytes(4, "little")), count)


class SumTree:
    """The tree of nonces and vectors."""

    def __init__(self, leaves: Mapping[int, bytes]) -> None:
        """leaves: vector bytes by nonce. Raises BadTree."""
        self._vectors = {nonce: leaves[nonce] for nonce in sorted(leaves)}
        self._nonces = list(self._vectors)
        highest = self._nonces[-1] if self._nonces else 0
        self.depth = max(LEAST_DEPTH, highest.bit_length())
        # Nodes of each level that are not empty, by their bits; level 0 has the leaves.
        levels = [{nonce: leaf(nonce, vector) for nonce, vector in self._vectors.items()}]
        for height in range(self.depth):
            below = levels[-1]
            empty = _empty(height)
            levels.append(
                {
                    bits: joined(below.get(2 * bits, empty), below.get(2 * bits + 1, empty))
                    for bits in {nonce >> 1 for nonce in below}
                }
            )
        self._levels = levels

    @property
    def root(self) -> Node:
        """Hash and count to commit to."""
        return self._levels[-1].get(0, _empty(self.depth))

    def open(self, index: int) -> Opening:
        """The leaf of a dense index, that is by rank of its nonce. Raises BadTree."""
        if not 0 <= index < len(self._nonces):
            raise BadTree(f"there is no leaf {index} among {len(self._nonces)}")
        nonce = self._nonces[index]
        siblings = [
            self._levels[height].get((nonce >> height) ^ 1, _empty(height))
            for height in reversed(range(self.depth))
        ]
        return Opening(index, nonce, self._vectors[nonce], siblings)


def network_accepts(opening: Opening, root: Node) -> bool:
    """Whether the network takes an opening for a leaf of a committed tree."""
    if not 0 <= opening.index < root.count or not 0 <= opening.nonce < 2**MOST_DEPTH:
        return False
    if any(not 0 <= sibling.count < 2**32 for sibling in opening.siblings):
        return False
    node, before = leaf(opening.nonce, opening.vector), 0
    for height, sibling in enumerate(reversed(opening.siblings)):
        if opening.nonce >> height & 1:
            before += sibling.count
            node = _sum(sibling, node)
        else:
            node = _sum(node, sibling)
    return node == root and before == opening.index


def strict_accepts(opening: Opening, root: Node, depth: int, vector_bytes: int) -> bool:
    """`network_accepts`, and the proof and the vector are as long as they must be."""
    return (
        LEAST_DEPTH <= depth <= MOST_DEPTH
        and len(opening.siblings) == depth
        and opening.nonce.bit_length() <= depth
        and len(opening.vector) == vector_bytes
        and network_accepts(opening, root)
    )


def too_porous(highest_nonce: int, count: int, most: int = 100) -> bool:
    """Whether the highest nonce is at least `most` times their number (§12.5)."""
    return count < 1 or highest_nonce >= most * count


def _sum(left: Node, right: Node) -> Node:
    """`joined`, for counts that a stranger gave: a sum beyond 32 bits is no node of any tree."""
    return joined(left, right) if left.count + right.count < 2**32 else Node(b"", -1)


@cache
def _empty(height: int) -> Node:
    if height == 0:
        return Node(_hash(b"\0"), 0)
    return joined(_empty(height - 1), _empty(height - 1))


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
