"""Scores of the hash challenge by release: v1.1.1 to v1.5.2 (§6).

The formula changed with nearly every release; each is kept under the release that first had it.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from windrow import WindrowError

MOST_DIFFICULTY: Final = 12
SECONDS: Final = 30.0


class NoTimeAllowed(WindrowError):
    """A share of no time at all was asked for."""


def percent(part: float, whole: float) -> float:
    """`part` of `whole` in percent, 0 of nothing (§6)."""
    return 0.0 if whole == 0 else 100 * part / whole


def percent_yield(spent: float, allowed: float) -> float:
    """What is left of `allowed` after `spent`, in percent; all of it when nothing was spent (§6).

    Raises NoTimeAllowed.
    """
    if spent == 0:
        return 100.0
    if allowed == 0:
        raise NoTimeAllowed(f"{spent} s were spent of a limit of 0; give a limit above 0")
    return 100 * (allowed - spent) / allowed


def score_v1_1_1(solved: bool, seconds: float, difficulty: int, registered: bool) -> float:
    """The formula behind the seed document's examples, at most 41 (§6.1)."""
    if not solved:
        return 0.0
    level = min(difficulty, 9)
    raw = 6 * (1 + level**4) + 0.75 * level + 0.25 * 10_000 / (1 + seconds)
    return min((raw + 100 * registered) / 10**5 * 100, 41.0)


def score_v1_2_0(solved: bool, seconds: float, difficulty: int, registered: bool) -> float:
    """At most 15 (§6.2)."""
    if not solved:
        return 0.0
    level = min(difficulty, 7)
    raw = level * (1 + level**6) + 0.5 * level + 0.5 * 200_000 / (1 + seconds)
    return min((raw + 20_000 * registered) / 10**6 * 100, 15.0)


@dataclass(frozen=True)
class Record:
    """A miner's challenges as the scores from v1.3 on read them (§5).

    difficulty, seconds: means over its successes; None where there are none, which the network
    takes for 0 seconds. recent_difficulty: over its newest 20 successes.
    """

    attempts: int
    successes: int
    failures: int
    recent_failures: int
    seconds: float | None
    difficulty: float | None
    recent_difficulty: float | None
    has_docker: bool = False


def score_v1_3_0(record: Record, registered: bool) -> float:
    """May be negative, and grows without bound for fast answers (§6.3)."""
    if record.recent_failures >= 10 or record.successes == 0:
        return 0.0
    seconds = record.seconds or 0.0
    speed = 100.0 if seconds == 0 else 100 * (SECONDS - seconds) / seconds
    return (
        0.8 * percent(record.successes, record.attempts)
        + 0.18 * min(record.difficulty or 0.0, MOST_DIFFICULTY)
        + 0.02 * speed
        + 1.0 * registered
        - 0.5 * record.recent_failures
        - 0.2 * record.failures
    ) / 100


def score_v1_3_9(record: Record, registered: bool) -> float:
    """At least 0 (§6.4)."""
    if record.recent_failures >= 10 or record.successes == 0:
        return 0.0
    score = (
        percent(record.successes, record.attempts)
        + 4 * min(record.difficulty or 0.0, MOST_DIFFICULTY)
        + 0.05 * percent_yield(record.seconds or 0.0, SECONDS)
        + 1.0 * registered
        - record.recent_failures
    )
    return max(score, 0.0) / 100


@dataclass(frozen=True)
class Weights:
    """What v1.4.2 to v1.5.2 weigh by. least: smallest difficulty; limit: seconds of a challenge."""

    speed: float
    failures: float
    allocation: float
    least: int
    limit: float

    @property
    def most(self) -> float:
        """The raw score that counts as 1."""
        return 100 * (2 + self.speed + self.allocation)


V1_4_2: Final = Weights(speed=0.3, failures=0.4, allocation=0.21, least=7, limit=30.0)
V1_4_3: Final = Weights(speed=0.35, failures=0.35, allocation=0.20, least=8, limit=120.0)
V1_5_2: Final = V1_4_2


def score_v1_4_2(record: Record, allocated: bool) -> float:
    """Nothing for ten recent failures or no success, allocated or not (§6.5)."""
    if record.recent_failures >= 10 or record.successes == 0:
        return 0.0
    return _weighed(record, allocated, V1_4_2)


def score_v1_4_3(record: Record, allocated: bool) -> float:
    """Nothing for 19 recent failures even when allocated, which no other release does (§6.5)."""
    if record.recent_failures >= 19 or (record.successes == 0 and not allocated):
        return 0.0
    return _weighed(record, allocated, V1_4_3)


def score_v1_5_2(
    record: Record, allocated: bool, hotkey: str, penalised: Collection[str], validators: int
) -> float:
    """The last one: penalties of half the validators take everything (§6.5).

    penalised: hotkeys, one entry per penalty. validators: how many there are.
    """
    if (record.recent_failures >= 19 or record.successes == 0) and not allocated:
        return 0.0
    entries = sum(entry == hotkey for entry in penalised)
    half = validators / 2
    kept = 1.0 if not entries else 0.0 if entries >= half else 1 - entries / half
    return _weighed(record, allocated, V1_5_2) * kept


def _weighed(record: Record, allocated: bool, weights: Weights) -> float:
    recent = weights.least if record.recent_difficulty is None else record.recent_difficulty
    difficulty = percent(min(max(recent, weights.least), MOST_DIFFICULTY), MOST_DIFFICULTY)
    if allocated:
        raw = 100 * (2 + weights.speed) * (1 - weights.allocation)
        return max(raw + difficulty * weights.allocation, 0.0) / weights.most
    raw = (
        difficulty
        + percent(record.successes, record.attempts)
        + percent_yield(record.seconds or 0.0, weights.limit) * weights.speed
        - 100 * math.pow(record.recent_failures / 20, 1.5) * weights.failures
    )
    return max(raw if record.has_docker else raw / 2, 0.0) / weights.most
