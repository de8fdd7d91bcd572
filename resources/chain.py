"""The chain: what blocks are, when they came, what is committed and weighed on them."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from windrow import WindrowError
from windrow.engine.fleet.membership import Membership

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


class ChainSilent(ChainError):
    """No endpoint of the chain has answered for longer than this process waits."""


class UnreadableChain(ChainError):
    """The chain answered, with an error or with something that cannot be its state."""


class EmptySubnet(ChainError):
    """The chain has no such subnet, or one without neurons: never taken for a quiet network."""


class UnknownSubnet(ChainError):
    """The chain has no subnet of this network, or nobody knows its number there."""


class NotRegistered(ChainError):
    """A hotkey has no number on the subnet."""


class ReorganisedWindow(ChainError):
    """A window's first block has another hash than when its randomness was drawn."""


class WindowClosed(ChainError):
    """A run for the open window began after uploads of that window had ended."""


class CommitmentRefused(ChainError):
    """A commitment the chain cannot hold."""


class WeightsRefused(ChainError):
    """Weights the chain does not accept."""


@dataclass(frozen=True)
class SetWeights:
    """What one hotkey last set: block it did so at, and weight by hotkey, each in [0, 1]."""

    block: int
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Concern:
    """Something about the chain that stopped nothing, and that its operator should know.

    name: ClockSkew, ChainSilent, LaggingChain, BlockReorganised, …; a row of `faults` is kept.
    """

    name: str
    detail: str


class Chain(Protocol):
    """One chain. Times are unix seconds, blocks are heights."""

    def now(self) -> float:
        """The time by the clock the chain's schedule is measured with."""
        ...

    def block(self) -> int:
        """The newest block."""
        ...

    def expected_block(self) -> int:
        """The newest block or, while the chain is silent, the one that should be by now.

        For deciding whether there is time left, and for nothing that must be true. Raises
        ChainSilent when this process never saw the chain, or not for too long.
        """
        ...

    def concerns(self) -> list[Concern]:
        """What was noticed in this process since this was last asked."""
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

    def membership(self, netuids: Mapping[str, int], hotkey: str) -> Membership:
        """What the subnet of another network says of a hotkey; netuids: its number by chain.

        Raises UnknownSubnet where this chain has no such subnet.
        """
        ...


def require_same_block(chain: Chain, window: int, recorded: str) -> None:
    """Raises ReorganisedWindow when the chain no longer gives `window` the hash that was recorded.

    Seeds, proofs and every row of a window file are bound to that hash: validators refuse the file.
    """
    current = chain.block_hash(window)
    if current != recorded:
        raise ReorganisedWindow(
            f"Block {window} was {recorded} when the window's randomness was drawn and is "
            f"{current} now: the chain was reorganised, and no rollout of this window counts. "
            "Nothing was uploaded. Run the window again while it is open: it starts from the new "
            "block."
        )


def is_closed(chain: Chain, window: int) -> bool:
    """Whether uploads of a window have ended (grail-protocol §8.4)."""
    try:
        return chain.now() >= chain.deadline(window)
    except FutureBlock:
        return False


def require_open(chain: Chain, window: int) -> None:
    """Raises WindowClosed when nothing made for this window would count any more."""
    if is_closed(chain, window):
        raise WindowClosed(
            f"Window {window} closed before this run could work on it, so the run was stopped. "
            "To mine the window as a replay, name it: "
            f"windrow windows {window} prints the command."
        )


def ensure_committed(chain: Chain, hotkey: str, text: str) -> str | None:
    """Commit a text unless the chain holds it already; returns what it held before.

    A text that this machine did not write means that another one uses the hotkey, or that the
    bucket's keys were changed.
    """
    before = chain.commitment(hotkey)
    if before != text:
        chain.commit(hotkey, text)
    return before


class WindowClock:
    """The clock of one window's work: time and height, from a chain that may fall silent.

    `block` rides out silence and raises ReorganisedWindow as soon as the window's first block is
    another one than its randomness was drawn from.
    """

    def __init__(self, chain: Chain, window: int, recorded: str) -> None:
        self._chain, self._window, self._recorded = chain, window, recorded

    def now(self) -> float:
        return self._chain.now()

    def block(self) -> int:
        block = self._chain.expected_block()
        # A chain that cannot be asked now was asked before and will be before the upload.
        with contextlib.suppress(ChainSilent):
            require_same_block(self._chain, self._window, self._recorded)
        return block
