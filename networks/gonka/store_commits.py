"""What the chain asks of a participant's commitments in proof of compute v2 (§12.4, §12.5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

LEAST_EARLY: Final = Fraction(1, 2)
"""Of the weighted median early share, the least that a participant's may be."""


@dataclass(frozen=True)
class StoreCommit:
    """One commitment: how many leaves at which block."""

    height: int
    count: int
    root_hash: bytes


def commit_faults(commits: Sequence[StoreCommit], first: int, last: int) -> list[str]:
    """What is wrong with a participant's commitments, as sent. first, last: the window."""
    faults = [
        f"the commitment of block {commit.height} is outside {first} to {last}"
        for commit in commits
        if not first <= commit.height <= last
    ]
    for before, after in pairwise(commits):
        if after.height <= before.height:
            faults.append(f"a second commitment in block {after.height}, or out of order")
        if after.count <= before.count:
            faults.append(f"the count went from {before.count} to {after.count}")
    return faults


def early_share(commits: Sequence[StoreCommit], start: int, end: int) -> Fraction:
    """Share of the final count that was committed within the first third of the window."""
    if not commits:
        return Fraction(0)
    early = [commit.count for commit in commits if 3 * (commit.height - start) <= end - start]
    return Fraction(max(early, default=0), max(commit.count for commit in commits))


def weighted_median(values: Mapping[str, Fraction], weights: Mapping[str, int]) -> Fraction:
    """The least value that at least half of the weight is at or below; 0 without weight."""
    rows = sorted((values[name], weights.get(name, 0)) for name in values)
    total = sum(weight for _, weight in rows)
    running = 0
    for value, weight in rows:
        running += weight
        if weight > 0 and 2 * running >= total:
            return value
    return Fraction(0)


def too_late(share: Fraction, median: Fraction, least: Fraction = LEAST_EARLY) -> bool:
    """Whether so much came after the first third that it may have been bought in."""
    return share < least * median
