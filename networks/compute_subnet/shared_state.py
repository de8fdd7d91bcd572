"""What validators share of miners on the network's public dashboard (§9).

A run's signature covers its name alone: anyone who can write to the dashboard can change the rest,
so what is read here moves no decision of Windrow's. It tells an operator what validators say.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


def run_message(run_id: str) -> bytes:
    """What is signed of a run: SHA-256 of its name, and nothing it says (§9)."""
    return hashlib.sha256(run_id.encode()).digest()


@dataclass(frozen=True)
class SharedStat:
    """What one validator says of one uid. score: 0 to 100; own: from a test of its own."""

    hotkey: str
    gpu_name: str | None
    gpu_count: int | None
    score: float
    own: bool


@dataclass(frozen=True)
class SharedRun:
    """One validator's run. signed: whether its name's signature verifies."""

    hotkey: str
    signed: bool
    stats: Mapping[str, SharedStat]
    allocated: Sequence[str]


def counted(
    runs: Iterable[SharedRun], validators: Collection[str], *, everyone: bool
) -> list[SharedRun]:
    """The signed runs of validators with enough stake, or for a listing of everyone (§9)."""
    return [run for run in runs if run.signed and (everyone or run.hotkey in validators)]


def consensus(runs: Iterable[SharedRun]) -> dict[str, SharedStat]:
    """Of every uid what most validators found themselves; of equally many the best score (§9)."""
    found: dict[str, list[SharedStat]] = {}
    for run in runs:
        for uid, stat in run.stats.items():
            if stat.own and stat.score != 0:
                found.setdefault(uid, []).append(stat)
    return {uid: _most_frequent(stats) for uid, stats in found.items()}


def allocated_hotkeys(runs: Iterable[SharedRun]) -> list[str]:
    """Every hotkey somebody says is rented, as often as it is said (§9)."""
    return [hotkey for run in runs for hotkey in run.allocated]


def _most_frequent(stats: list[SharedStat]) -> SharedStat:
    times = Counter((stat.gpu_name, stat.gpu_count, stat.score) for stat in stats)
    return max(
        stats,  # max keeps the first of equals
        key=lambda stat: (times[stat.gpu_name, stat.gpu_count, stat.score], stat.score),
    )
