"""The chain: what blocks are, when they came, what is committed and weighed on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from windrow import WindrowError

# A commitment is one raw field of at most 128 bytes (grail-protocol §8.1, grail-validation §17.1).
MAX_COMMITMENT_BYTES = 128


class ChainError(WindrowError):
    """The chain cannot answer, or does not accept what was sent."""


class FutureBlock(ChainError):
    """A block that is not produced yet has no hash and no timestamp.

    opens_at: when it is expected, in unix seconds; None when only a person can tell.
    """

    def __init__(self, message: str, block: int, opens_at: float | None) -> None:
        super().__init__(message)
        self.block = block
        self.opens_at = opens_at


class CommitmentRefused(ChainError):
    """A commitment the chain cannot hold."""


class WeightsRefused(ChainError):
    """Weights the chain does not accept."""


@dataclass(frozen=True)
class SetWeights:
    """What one hotkey last set: block it did so at, and weight by hotkey, each in [0, 1]."""

    block: int
    weights: Mapping[str, float]


class Chain(Protocol):
    """One chain. Times are unix seconds, blocks are heights."""

    def now(self) -> float:
        """The time by the clock the chain's schedule is measured with."""
        ...

    def block(self) -> int:
        """The newest block."""
        ...

    def block_hash(self, block: int) -> str:
        """`0x` and 64 lower-case hex digits. Raises FutureBlock."""
        ...

    def timestamp(self, block: int) -> float:
        """When a block was produced. Raises FutureBlock."""
        ...

    def block_at_time(self, time: float) -> int:
        """The newest block produced at or before a time that has come. Raises ChainError."""
        ...

    def deadline(self, window: int) -> float:
        """When uploads of a window end: timestamp of block window + 30, less 4 s.

        grail-protocol §8.4. While that block is still to come, its expected time is used.
        """
        ...

    def commit(self, hotkey: str, text: str) -> None:
        """Store a hotkey's commitment, replacing the last. Raises CommitmentRefused."""
        ...

    def commitment(self, hotkey: str) -> str | None:
        """A hotkey's commitment, if it made one."""
        ...

    def set_weights(self, hotkey: str, weights: Mapping[str, float]) -> None:
        """Store the weights a validator hotkey gives to hotkeys. Raises WeightsRefused."""
        ...

    def weights(self, hotkey: str) -> SetWeights | None:
        """The weights a hotkey last set, if it ever did."""
        ...
