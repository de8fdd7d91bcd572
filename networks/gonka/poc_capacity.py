"""How GPUs are grouped, how much each takes at once, and who does which nonce (§9.6, §9.7)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import floor, gcd
from typing import Final

from windrow import WindrowError
from windrow.kernels.decoder import DecoderShape

LEAST_GROUP_GIB: Final = {"V1": 10.0, "V2": 38.0}
"""GiB a group of GPUs needs; sets that are not named need what V2 does."""

_GROUP_SIZES: Final = (1, 2, 4, 8)


class BadPartition(WindrowError):
    """Nodes that would do the same nonces, or numbers that are no partition."""


def gpu_groups(vram_gib: Sequence[float], least_gib: float) -> list[list[int]]:
    """Indices of the GPUs of each group; none where nothing reaches `least_gib`.

    A device that starts no group is left out, so the order of unequal cards matters.
    """
    groups, device = [], 0
    while device < len(vram_gib):
        for size in _GROUP_SIZES:
            members = list(range(device, device + size))
            if members[-1] < len(vram_gib) and sum(vram_gib[i] for i in members) >= least_gib:
                groups.append(members)
                device += size
                break
        else:
            device += 1
    return groups


def batch_size_v1(total_mib: float, usable: float = 0.9) -> int:
    """Nonces at once with the V1 set."""
    return floor((usable * total_mib - 6500) / 30.5)


def batch_size_v2(free_mib: Sequence[float], shape: DecoderShape) -> int:
    """Nonces at once of one group with the V2 set, at least 1. free_mib: of each GPU."""
    weights = shape.n_layers * (4 * shape.dim**2 + 3 * shape.dim * shape.hidden)
    weights_mib = 2 * (weights + shape.vocab_size * shape.dim) / 2**20
    least = min(free * 0.9 * 0.9 - weights_mib / len(free_mib) for free in free_mib)
    tokens = shape.seq_len * shape.dim
    scores = shape.n_heads * shape.seq_len**2
    item_mib = (4 * shape.n_layers * tokens + 16 * tokens + 2 * scores) / 2**20
    return max(1, floor(least / item_mib))


@dataclass(frozen=True)
class Partition:
    """The nonces of one group of one node: start, start + stride, start + 2 * stride, ..."""

    start: int
    stride: int

    def __iter__(self) -> Iterator[int]:
        return count(self.start, self.stride)

    def __contains__(self, nonce: object) -> bool:
        return (
            isinstance(nonce, int)
            and nonce >= self.start
            and (nonce - self.start) % self.stride == 0
        )

    def meets(self, other: "Partition") -> bool:
        """Whether the two have a nonce in common: two residue classes do, or never do."""
        return (self.start - other.start) % gcd(self.stride, other.stride) == 0


def network_partition(node: int, nodes: int, group: int = 0, groups: int = 1) -> Partition:
    """As the network deals nonces: `node` is any number, not one below `nodes`."""
    return Partition(node + group * nodes, groups * nodes)


def dense_partition(index: int, nodes: int, group: int = 0, groups: int = 1) -> Partition:
    """A node's own residue class, shared out to its groups. Raises BadPartition.

    index: dense, 0 to nodes - 1, fixed for the stage. Whatever number of groups another node has,
    its class is another one, so no two of a fleet meet.
    """
    if not (0 <= index < nodes and 0 <= group < groups):
        raise BadPartition(
            f"node {index} of {nodes}, group {group} of {groups}: count both from 0 without gaps"
        )
    return Partition(index + group * nodes, groups * nodes)


def collisions(partitions: Sequence[Partition]) -> list[tuple[int, int]]:
    """Pairs of partitions that share nonces, by index. None is proof that there is no duplicate."""
    return [
        (first, second)
        for second in range(len(partitions))
        for first in range(second)
        if partitions[first].meets(partitions[second])
    ]
