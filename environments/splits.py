"""Which rows of a data set belong to which split, and which one a problem seed selects (§12)."""

import random
from collections.abc import Mapping, Sequence

from windrow.environments.errors import DatasetUnavailable, UnknownEnvironment

SHUFFLE_SEED = 42
SMALL_SET_SHARE = 15
"""A set with no more rows than the network holds out gives up one in fifteen instead, which is the
share MATH gives up on the network. It concerns no data set of the network."""


def fraction_index(seed: int, size: int) -> int:
    """Index by the seed's position in [0, 2^32) (§12.3)."""
    return int((seed % 2**32) / 2**32 * size)


def modulo_index(seed: int, size: int) -> int:
    """Index by remainder (§12.5)."""
    return seed % size


def held_out(rows: int, network_count: int) -> int:
    """How many of a data set's training rows are validation rows."""
    return network_count if rows > network_count else rows // SMALL_SET_SHARE


def shuffled(rows: int) -> list[int]:
    """Row numbers in the order of a fresh generator seeded 42."""
    order = list(range(rows))
    random.Random(SHUFFLE_SEED).shuffle(order)  # noqa: S311 - the network's own choice
    return order


def train_and_validation(rows: int, validation: int) -> tuple[list[int], list[int]]:
    """Row numbers of (train, validation), both in their original order (§12.3)."""
    chosen = set(shuffled(rows)[:validation])
    everything = range(rows)
    return [i for i in everything if i not in chosen], [i for i in everything if i in chosen]


def stratified(
    subsets: Mapping[str, int], validation: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(subset, row number) of (train, validation) for subsets of given sizes, in order (§12.4).

    One generator shuffles all subsets in turn; the last subset takes what rounding left over.
    """
    generator = random.Random(SHUFFLE_SEED)  # noqa: S311 - the network's own choice
    total = sum(subsets.values())
    train: list[tuple[str, int]] = []
    val: list[tuple[str, int]] = []
    for position, (name, size) in enumerate(subsets.items(), start=1):
        left = validation - len(val)
        share = left if position == len(subsets) else round(validation * size / total)
        order = list(range(size))
        generator.shuffle(order)
        chosen = set(order[: min(share, size, left)])
        train += [(name, i) for i in range(size) if i not in chosen]
        val += [(name, i) for i in range(size) if i in chosen]
    return train, val


def extended(test: int) -> tuple[list[int], list[int]]:
    """Rows of MBPP's test set that join (train, validation), in shuffled order (§12.5)."""
    order = shuffled(test)
    cut = int(0.8 * test)
    return order[:cut], order[cut:]


def check_split(split: object, known: Sequence[str], env_id: str) -> str:
    """The split's name. Raises UnknownEnvironment for one the environment does not have."""
    if not isinstance(split, str) or split not in known:
        raise UnknownEnvironment(
            f"environment {env_id} has no split {split!r:.40}; the checkpoint's env_params may "
            f"name {', '.join(known)}"
        )
    return split


def check_filled(rows: int, env_id: str, split: str) -> None:
    """Raises DatasetUnavailable when a split has no problem to select."""
    if not rows:
        raise DatasetUnavailable(
            f"split {split} of environment {env_id} is empty; use a task source with more rows"
        )
