"""Scores of the GPU proof by release, who may be listed, and the weights on the chain (§7.6, §8).

`worth` maps a model's name to its score, as the network publishes it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_GPUS: Final = 8
"""Cards of a node beyond it earn nothing, from v1.6.1 on."""


def _share(model: str | None, count: int | None, worth: Mapping[str, float], most: int) -> float:
    """Score of `count` cards in percent of 8 of the best; 0 for a model that has none."""
    if model is None or count is None or not worth or model not in worth:
        return 0.0
    best = MOST_GPUS * max(worth.values())
    return 100 * worth[model] * min(count, most) / best if best else 0.0


def score_v1_6_0(
    model: str | None, count: int | None, worth: Mapping[str, float], allocated: bool
) -> float:
    """Half for the cards, without a limit to their number, half for being rented (§8)."""
    if model is None or count is None or model not in worth:
        return 0.0
    return (_share(model, count, worth, count) + 100 * allocated) / 200


def score_v1_6_x(
    model: str | None, count: int | None, worth: Mapping[str, float], allocated: bool
) -> float:
    """As v1.6.0 with at most 8 cards (§8)."""
    if model is None or count is None or model not in worth:
        return 0.0
    return (_share(model, count, worth, MOST_GPUS) + 100 * allocated) / 200


def score_v1_7_0(
    model: str | None, count: int | None, worth: Mapping[str, float], allocated: bool
) -> float:
    """Twice as much for a node that is rented (§8)."""
    return 0.5 * _share(model, count, worth, MOST_GPUS) * (2 if allocated else 1) / 100


def score_v1_8_3(model: str | None, count: int | None, worth: Mapping[str, float]) -> float:
    """The cards alone (§8)."""
    return _share(model, count, worth, MOST_GPUS) / 100


@dataclass(frozen=True)
class ProvedGpus:
    """What a miner last proved."""

    model: str | None
    count: int | None


@dataclass(frozen=True)
class UidScore:
    """score: 0 to 100, as it is shared. own: from the validator's own test."""

    score: float
    own: bool


def scores_of_uids(
    hotkeys: Mapping[int, str],
    queryable: Collection[int],
    proved: Mapping[str, ProvedGpus],
    shared: Mapping[int, float],
    penalised: Collection[str],
    worth: Mapping[str, float],
) -> dict[int, UidScore]:
    """Score of every uid that can be asked: its own proof, else what others share, else 0 (§8).

    shared: 0 to 100, by uid.
    """
    scores = {}
    for uid in queryable:
        hotkey = hotkeys[uid]
        own = hotkey in proved or uid not in shared
        if hotkey in proved:
            score = 100 * score_v1_8_3(proved[hotkey].model, proved[hotkey].count, worth)
        else:
            score = shared.get(uid, 0.0)
        scores[uid] = UidScore(0.0 if hotkey in penalised else score, own)
    return scores


@dataclass(frozen=True)
class ProofEntry:
    """One stored test: how old it is, and whether it named a card."""

    age_hours: float
    model: str | None
    count: int | None

    @property
    def succeeded(self) -> bool:
        """Whether the test found GPUs."""
        return self.model is not None and self.count is not None


def may_be_listed(entries: Sequence[ProofEntry], hours: float, blacklisted: bool) -> bool:
    """One success, and a test older than `hours`, and no blacklist (§7.6)."""
    return (
        not blacklisted
        and any(entry.succeeded for entry in entries)
        and any(entry.age_hours > hours for entry in entries)
    )


def chain_weights(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Weights float32 [N] of scores [N]: negatives are 0, the rest share 1 if there is any (§8)."""
    positive = np.maximum(np.asarray(scores, np.float32), np.float32(0))
    total = positive.sum(dtype=np.float32)
    return positive / total if total > 0 else positive
