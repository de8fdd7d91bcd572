"""Who looks at what: samples and slots that anyone can draw again (§10.2, §11, §12.5).

The network's samples are known before the work is handed in, or follow from the order the work is
handed in; `strict_sample` is drawn from what nobody knew then, over what was handed in as a set.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from windrow.kernels.go_random import GoRandom

SAMPLE_SIZE: Final = 200


def signed_seed(text: str) -> int:
    """The first 8 bytes of a text's hash as Go reads them: signed, big-endian."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def network_sample(
    validator_key: str, block_hash: str, block_height: int, total: int, size: int = SAMPLE_SIZE
) -> list[int]:
    """Indices into a participant's nonces, its batches in the order of their ids (v1)."""
    if size >= total:
        return list(range(total))
    seed = signed_seed(f"{validator_key}:{block_hash}:{block_height}")
    return GoRandom(seed).perm(total)[:size]


def network_leaves(
    validator_key: str,
    block_hash: str,
    block_height: int,
    model: str,
    total: int,
    size: int = SAMPLE_SIZE,
) -> list[int]:
    """Indices of the committed leaves that a validator asks for (v2)."""
    if size >= total:
        return list(range(total))
    random = GoRandom(signed_seed(f"{validator_key}:{block_hash}:{block_height}:{model}"))
    return _drawn(size, lambda i: random.intn(total - i))


def strict_sample(randomness: bytes, total: int, size: int) -> list[int]:
    """Indices into the sorted unique nonces, ascending.

    randomness: not known to anyone before the work was handed in, e.g. the app hash of a block
    after the exchange window, joined with what the validator keeps to itself until then.
    """
    if size >= total:
        return list(range(total))

    def uniform(i: int) -> int:
        # 128 bits over at most 2**63 values: the remainder's bias is below 2**-64.
        digest = hashlib.sha256(b"windrow-poc-sample" + randomness + i.to_bytes(8, "big")).digest()
        return int.from_bytes(digest[:16], "big") % (total - i)

    return sorted(_drawn(size, uniform))


def serving_slots(epoch: int, address: str, model: str, nodes: Sequence[str]) -> list[str]:
    """The half of a participant's nodes that goes on serving during the next proof (§11.8)."""
    shuffled = list(nodes)
    GoRandom(signed_seed(f"{epoch}_{address}_{model}")).shuffle(shuffled)
    return shuffled[: len(nodes) // 2]


def validator_slots(
    app_hash: str, address: str, model: str, weights: Mapping[str, int], slots: int
) -> list[str]:
    """Which validator each slot falls to, by weight; who has none is left out (v2).

    Raises ValueError where nobody has weight.
    """
    entries = sorted((name, weight) for name, weight in weights.items() if weight > 0)
    total = sum(weight for _, weight in entries)
    if not total:
        raise ValueError("no validator has a positive weight, so no slot can be given")
    chosen = []
    for slot in range(slots):
        digest = hashlib.sha256(f"{app_hash}{address}{model}{slot}".encode()).digest()
        value = int.from_bytes(digest[:8], "big") % total
        for name, weight in entries:
            value -= weight
            if value < 0:
                chosen.append(name)
                break
    return chosen


def _drawn(size: int, below: Callable[[int], int]) -> list[int]:
    """The first `size` of a lazy Fisher-Yates shuffle; below(i): 0 to one less than are left."""
    moved: dict[int, int] = {}
    drawn = []
    for i in range(size):
        j = i + below(i)
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return drawn
