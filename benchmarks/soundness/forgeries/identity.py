"""Rollouts of others, and problems that are not the miner's next ones."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.soundness.claims import ROWS
from benchmarks.soundness.forgeries.base import (
    Forgery,
    Material,
    miners_of,
    other_prompt,
    with_fields,
)
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP


def identity(m: Material) -> Iterator[Forgery]:
    rollouts, honest = m.rollouts, m.honest

    def moved(by: int) -> dict[str, Any]:
        """The honest rollouts and proofs of other rows."""
        names = ("sequences", "prompt_lengths")
        lists = {n: (v := getattr(rollouts, n))[by:] + v[:by] for n in names}
        arrays = {
            n: np.roll(getattr(rollouts, n), -by) for n in ("rewards", "advantages", "successes")
        }
        proofs = {
            "sketches": honest.sketches[by:] + honest.sketches[:by],
            "logprobs": honest.logprobs[by:] + honest.logprobs[:by],
        }
        return lists | arrays | proofs

    copied = honest.changed(**moved(ROWS))
    yield Forgery(
        "copied from another miner, its signatures kept",
        "identity",
        copied.changed(signers=np.roll(rollouts.miners, -ROWS)),
        m.everywhere,
        False,
    )
    yield Forgery(
        "copied from another miner, signed again", "identity", copied, m.everywhere, False
    )
    yield Forgery(
        "replayed under the next group's number",
        "identity",
        honest.changed(**moved(ROLLOUTS_PER_GROUP)),
        other_prompt(rollouts, np.roll(np.arange(len(rollouts)), -ROLLOUTS_PER_GROUP)),
        False,
    )
    eight = min(8, len(miners_of(rollouts)))
    skipping = m.world.sample(miners_of(rollouts)[:eight], groups=(3, 7, 11, 15))
    yield Forgery(
        "every fourth group number used (the easiest of four)",
        "identity",
        m.reproved(skipping).changed(signers=skipping.miners),
        np.ones(len(skipping), np.bool_),
        False,
        "each rollout is honest; the file is not",
    )
    foreign = tuple(
        _foreign(s, p) for s, p in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)
    )
    yield Forgery(
        "foreign prompt: one token of it changed, proved again",
        "identity",
        m.reproved(with_fields(rollouts, sequences=foreign)),
        m.everywhere,
        False,
    )


def _foreign(sequence: NDArray[np.int32], prompt: int) -> NDArray[np.int32]:
    changed = sequence.copy()
    changed[prompt // 2] = changed[prompt // 2 - 1]
    return changed
