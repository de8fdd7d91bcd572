"""What a miner's last hash challenges add up to, and the difficulty of its next (§5).

Rows come newest first or in any order; ties in time keep the order they were stored in.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

WINDOW: Final = 60
"""Challenges of a uid that count."""
RECENT: Final = 20
"""Challenges whose failures, and successes whose difficulties, decide what comes next."""


@dataclass(frozen=True)
class Challenge:
    """One finished challenge. elapsed: seconds by the validator's clock."""

    uid: int
    hotkey: str
    success: bool
    elapsed: float | None
    difficulty: float | None
    created_at: datetime


@dataclass(frozen=True)
class ChallengeStats:
    """Counts and means of one uid; a mean over no success is None.

    recent_failures: among its newest 20 challenges; recent_difficulty: over its newest 20
    successes, however long ago.
    """

    hotkey: str
    attempts: int
    successes: int
    elapsed_mean: float | None
    difficulty_mean: float | None
    recent_failures: int
    recent_difficulty: float | None

    @property
    def failures(self) -> int:
        """Challenges that were not solved in time."""
        return self.attempts - self.successes


def challenge_stats(challenges: Iterable[Challenge]) -> dict[int, ChallengeStats]:
    """Statistics by uid, over its newest 60 challenges (§5)."""
    by_uid: dict[int, list[Challenge]] = {}
    for challenge in challenges:
        by_uid.setdefault(challenge.uid, []).append(challenge)
    return {uid: _stats(rows) for uid, rows in sorted(by_uid.items())}


def _stats(rows: list[Challenge]) -> ChallengeStats:
    rows = sorted(rows, key=lambda row: row.created_at, reverse=True)
    newest = rows[:WINDOW]
    solved = [row for row in newest if row.success]
    last_solved = [row for row in rows if row.success][:RECENT]
    return ChallengeStats(
        hotkey=newest[0].hotkey,
        attempts=len(newest),
        successes=len(solved),
        elapsed_mean=_mean([row.elapsed for row in solved]),
        difficulty_mean=_mean([row.difficulty for row in solved]),
        recent_failures=sum(not row.success for row in newest[:RECENT]),
        recent_difficulty=_mean([row.difficulty for row in last_solved]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def next_difficulty(
    successes: int,
    recent_failures: int,
    recent_difficulty: float | None,
    *,
    least: int = 7,
    most: int = 12,
) -> int:
    """Characters of the next password (§5): up while nearly all are solved, down after failures.

    Only results count, no figure of the hardware. A miner of at most 4 successes starts over; one
    whose successes have no difficulty on record is taken for one that has solved the least.
    """
    if successes <= 4:
        return least
    difficulty = least if recent_difficulty is None else math.ceil(recent_difficulty)
    failed = recent_failures / RECENT
    if failed < 0.10:
        difficulty += 2
    elif failed < 0.20:
        difficulty += 1
    elif failed > 0.25:
        difficulty -= 1
    return min(max(difficulty, least), most)
