"""Rewards, advantages and success flags that are not the evaluated ones."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.soundness.forgeries.base import Forgery, Material
from windrow.networks.grail.advantages import group_advantages
from windrow.networks.grail.constants import ADVANTAGE_TOLERANCE, ROLLOUTS_PER_GROUP

BEST_REWARD: Final = 0.735


def numbers(m: Material) -> Iterator[Forgery]:
    rollouts = m.rollouts
    shape = (-1, ROLLOUTS_PER_GROUP)
    rewards = rollouts.rewards.reshape(shape)

    def forged(
        name: str, new: NDArray[np.float64], applies: NDArray[np.bool_], **fields: Any
    ) -> Forgery:
        claimed = {
            "rewards": new.ravel(),
            "advantages": np.concatenate([group_advantages(group) for group in new]),
        } | fields
        return Forgery(name, "numbers", m.honest.changed(**claimed), applies, True)

    lowest = np.argsort(rewards, axis=1, kind="stable") < 0
    np.put_along_axis(lowest, np.argsort(rewards, axis=1, kind="stable")[:, :3], True, axis=1)
    inflated = np.where(lowest, BEST_REWARD, rewards)
    yield forged("rewards: 3 of 16 raised", inflated, (inflated != rewards).ravel())
    best = np.full_like(rewards, BEST_REWARD)
    yield forged("rewards: all raised", best, (best != rewards).ravel())
    yield forged("rewards: NaN", np.full_like(rewards, np.nan), m.everywhere)
    advantages = rollouts.advantages
    yield forged(
        "advantages: turned round",
        rewards,
        np.abs(advantages) > ADVANTAGE_TOLERANCE,
        advantages=-advantages,
    )
    yield forged(
        "advantages: NaN", rewards, m.everywhere, advantages=np.full_like(advantages, np.nan)
    )
    yield forged("success: turned round", rewards, m.everywhere, successes=~rollouts.successes)
