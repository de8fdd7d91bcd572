"""What every forgery starts from and is made of."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.soundness.claims import Claims
from benchmarks.soundness.provers import Oracle, as_proofs
from benchmarks.soundness.world import GROUPS, Rollouts, World
from windrow.engine.validation.measures import RolloutMeasure
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP


@dataclass(frozen=True)
class Forgery:
    """One entry of the catalogue.

    section: what is forged. applies: bool [n], rollouts that are forged; the others of the file
    are as they should be. same_tokens: whether the tokens are the honest ones. note: why a
    rollout of this kind can be honest too, empty where it cannot.
    """

    name: str
    section: str
    claims: Claims
    applies: NDArray[np.bool_]
    same_tokens: bool
    note: str = ""


@dataclass(frozen=True)
class OtherModel:
    """A model that is not the checkpoint's. note: as of the forgery made with it."""

    name: str
    model: Any
    note: str = ""


@dataclass(frozen=True)
class Material:
    """What the forger starts from: honest claims, and what the model says of them."""

    world: World
    honest: Claims
    own: Sequence[RolloutMeasure]
    oracle: Oracle
    others: Sequence[OtherModel]

    @property
    def rollouts(self) -> Rollouts:
        return self.honest.rollouts

    @property
    def everywhere(self) -> NDArray[np.bool_]:
        return np.ones(len(self.rollouts), np.bool_)

    def reproved(self, rollouts: Rollouts) -> Claims:
        """Other tokens, with the proof that the true model gives them."""
        sketches, logprobs = as_proofs(rollouts, self.oracle.own(rollouts, self.world.policy))
        return self.honest.changed(
            **{name: getattr(rollouts, name) for name in rollouts.__annotations__},
            sketches=sketches,
            logprobs=logprobs,
        )


def graded(m: Material, completions: Sequence[NDArray[np.int32]]) -> Rollouts:
    """Other completions of the same groups, with their true rewards."""
    own = [c.astype(np.int32) for c in completions]
    return m.world.rollouts(miners_of(m.rollouts), GROUPS, own)


def with_fields(rollouts: Rollouts, **fields: Any) -> Rollouts:
    return Rollouts(**{n: getattr(rollouts, n) for n in rollouts.__annotations__} | fields)


def other_prompt(rollouts: Rollouts, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [n]: whether each rollout's prompt differs from that of another row."""
    prompts = [s[:p] for s, p in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)]
    return np.array(
        [not np.array_equal(own, prompts[row]) for own, row in zip(prompts, rows, strict=True)]
    )


def miners_of(rollouts: Rollouts) -> list[int]:
    return [int(miner) for miner in np.unique(rollouts.miners)]


def groups_of(rollouts: Rollouts) -> list[tuple[int, int]]:
    at = slice(None, None, ROLLOUTS_PER_GROUP)
    return list(zip(rollouts.miners[at].tolist(), rollouts.groups[at].tolist(), strict=True))


def sibling(rollouts: Rollouts, row: int) -> int:
    """The next rollout of the group with another completion; the row itself if there is none."""
    start = row - row % ROLLOUTS_PER_GROUP
    own = rollouts.sequences[row].tobytes()
    for step in range(1, ROLLOUTS_PER_GROUP):
        other = start + (row - start + step) % ROLLOUTS_PER_GROUP
        if rollouts.sequences[other].tobytes() != own:
            return other
    return row


def stream(name: str, of: bytes = b"") -> np.random.Generator:
    """One stream a forgery, so that none depends on which others run."""
    return np.random.default_rng(zlib.crc32(name.encode() + of))
