"""Batches of nonces with their distances, and the network's verdict on one (§6, §10.1, §10.3)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from windrow import WindrowError
from windrow.kernels.tails import binomial_tail

P_MISMATCH: Final = 5e-4
FRAUD_THRESHOLD: Final = 1e-7


class ReceivedAboveTarget(WindrowError):
    """The network's check itself fails: a batch claims a distance that is no success.

    There the sender of the ML node dies of it and says nothing for the rest of the stage.
    """


@dataclass(frozen=True)
class ProofBatch:
    """Nonces and distances of one participant for one block; without any, of nobody."""

    public_key: str = ""
    block_hash: str = ""
    block_height: int = -1
    node_id: int = -1
    nonces: tuple[int, ...] = ()
    distances: tuple[float, ...] = ()

    def below(self, r_target: float) -> Self:
        """What is a success: strictly below the target."""
        return self._at([i for i, dist in enumerate(self.distances) if dist < r_target])

    def split(self, size: int) -> list[Self]:
        """Batches of at most `size`, in order."""
        length = len(self.nonces)
        return [
            self._at(range(start, min(start + size, length))) for start in range(0, length, size)
        ]

    def sorted(self) -> Self:
        """By nonce; equal ones stay in order."""
        return self._at(sorted(range(len(self.nonces)), key=self.nonces.__getitem__))

    def body(self) -> dict[str, object]:
        """As a node's `generated` callback carries it."""
        return {
            "public_key": self.public_key,
            "block_hash": self.block_hash,
            "block_height": self.block_height,
            "nonces": list(self.nonces),
            "dist": list(self.distances),
            "node_id": self.node_id,
        }

    def _at(self, rows: Sequence[int]) -> Self:
        return replace(
            self,
            nonces=tuple(self.nonces[i] for i in rows),
            distances=tuple(self.distances[i] for i in rows),
        )


def merge(batches: Sequence[ProofBatch]) -> ProofBatch:
    """All rows in order, under the first one's names; the empty batch of nobody for none."""
    if not batches:
        return ProofBatch()
    return replace(
        batches[0],
        nonces=tuple(nonce for batch in batches for nonce in batch.nonces),
        distances=tuple(dist for batch in batches for dist in batch.distances),
    )


@dataclass
class Recomputing:
    """A batch in validation: ready once every one of its nonces has been computed again."""

    received: ProofBatch
    _computed: dict[int, float] = field(default_factory=dict)

    def take(self, computed: ProofBatch) -> None:
        """Add results; those of another key, block or height are passed over."""
        mine, theirs = self.received, computed
        if (mine.public_key, mine.block_hash, mine.block_height) != (
            theirs.public_key,
            theirs.block_hash,
            theirs.block_height,
        ):
            return
        wanted = set(mine.nonces)
        rows = zip(computed.nonces, computed.distances, strict=True)
        self._computed |= {nonce: dist for nonce, dist in rows if nonce in wanted}

    @property
    def ready(self) -> bool:
        return all(nonce in self._computed for nonce in self.received.nonces)

    def distances(self) -> list[float]:
        """Distances computed, in the order received. Raises KeyError before all are there."""
        return [self._computed[nonce] for nonce in self.received.nonces]


@dataclass(frozen=True)
class FraudTest:
    """The network's verdict on a sample."""

    invalid: int
    probability_honest: float
    fraud: bool


def network_fraud_test(
    computed: Sequence[float],
    received: Sequence[float],
    r_target: float,
    fraud_threshold: float = FRAUD_THRESHOLD,
) -> FraudTest:
    """As the network decides. Raises ReceivedAboveTarget where its node falls silent.

    NaN is valid here, a received distance is never compared with the computed one, and a nonce
    that occurs twice counts twice.
    """
    if not all(dist < r_target for dist in received):
        raise ReceivedAboveTarget(
            f"A received distance is not below {r_target}: the network's sender dies of it"
        )
    invalid = sum(dist > r_target for dist in computed)
    return _decided(len(computed), invalid, P_MISMATCH, fraud_threshold)


def fraud_from_counts(n: int, bad: int, p_mismatch: float, threshold: float) -> FraudTest:
    """The one-sided binomial test of both versions; nothing sampled is honest."""
    return _decided(n, bad, p_mismatch, threshold)


def smallest_flagged(
    n: int, fraud_threshold: float = FRAUD_THRESHOLD, p_mismatch: float = P_MISMATCH
) -> int | None:
    """How many invalid nonces of `n` the network needs to see fraud; None where none suffice."""
    counts = (k for k in range(n + 1) if binomial_tail(n, k, p_mismatch) < fraud_threshold)
    return next(counts, None)


def network_refusal(message: Mapping[str, object], expected_height: int) -> str | None:
    """Why the chain refuses a `MsgSubmitPocBatch` whose window is open, or None (§10.1).

    There is no check of duplicates, nor of distances against the target.
    """
    nonces, dist = message.get("nonces"), message.get("dist")
    if message.get("poc_stage_start_block_height") != expected_height:
        return "another stage"
    if not message.get("batch_id"):
        return "no batch id"
    if not isinstance(nonces, list | tuple) or not isinstance(dist, list | tuple):
        return "no lists of nonces and distances"
    if not nonces or any(type(nonce) is not int or nonce < 0 for nonce in nonces):
        return "no nonces, or a negative one"
    if len(nonces) != len(dist):
        return "lengths differ"
    numbers = all(isinstance(d, int | float) and math.isfinite(d) and d >= 0 for d in dist)
    return None if numbers else "a distance is negative or not finite"


def _decided(n: int, bad: int, p_mismatch: float, threshold: float) -> FraudTest:
    probability = binomial_tail(n, bad, p_mismatch)
    return FraudTest(bad, probability, n > 0 and probability < threshold)
