"""The newest block of a chain, what stands in for it in silence, and the clock held against it.

Only the head last seen is kept. While nobody answers it stands in for `expected_number` and for
deadlines, where an early guess is a safe one, and for nothing else.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from windrow.resources.bittensor.connection import BittensorConnection
from windrow.resources.bittensor.reads import Head, read_head, read_number
from windrow.resources.chain import ChainError, ChainSilent, Concern, FutureBlock

RIDE_OUT_SECONDS = 600.0
"""A head seen longer ago stands in for a silent chain no more: two windows have nearly passed."""

CLOCK_SLACK_SECONDS = 2.0
"""A block from further in the future than this means that the clock here is slow."""

LAG_BLOCKS = 5
"""A newest block older than this many block times means a fast clock, or a node that lags."""


class HeadWatch:
    """Follows the best head of a connection. clock: unix seconds, of this machine."""

    def __init__(
        self, connection: BittensorConnection, block_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._connection, self._block_seconds, self._clock = connection, block_seconds, clock
        self._lock = threading.Lock()
        self._head: Head | None = None
        self._seen = 0.0
        self._concerns: dict[str, Concern] = {}

    def number(self) -> int:
        """The newest block's, asked for. Raises ChainSilent."""
        number = self._connection.ask("the newest block", read_number)
        if self._head is None or number > self._head.number:
            return self.newest().number
        return number

    def expected_number(self) -> int:
        """The newest block's or, in silence, what it should be by now. Raises ChainSilent."""
        try:
            return self.number()
        except ChainSilent as error:
            head = self._stand_in(error)
            return head.number + int((self._clock() - self._seen) / self._block_seconds)

    def newest_or_last_seen(self) -> Head:
        """Raises ChainSilent when there is neither."""
        try:
            return self.newest()
        except ChainSilent as error:
            return self._stand_in(error)

    def newest(self) -> Head:
        """The newest block, asked for; this machine's clock is held against its time."""
        head = self._connection.ask("the newest block", read_head)
        with self._lock:
            # A fallback endpoint may be a block behind; what was seen before stays the anchor.
            if self._head is None or head.number > self._head.number:
                self._head, self._seen = head, self._clock()
        self._check_clock(head)
        return head

    def _check_clock(self, head: Head) -> None:
        age = self._clock() - head.timestamp
        if age < -CLOCK_SLACK_SECONDS:
            self.note(
                "ClockSkew",
                f"block {head.number} was made at {utc(head.timestamp)}, {-age:.0f} s from now by "
                "this machine's clock, which is slow. Uploads are timed by their bucket, but time "
                "left is reckoned here: set the clock (NTP).",
            )
        elif age > LAG_BLOCKS * self._block_seconds:
            self.note(
                "LaggingChain",
                f"the newest block at {self._connection.url}, {head.number}, is {age:.0f} s old: "
                "this machine's clock is fast, the node lags, or the chain stands still. Compare "
                "the clock (NTP), then another endpoint.",
            )

    def require_produced(self, block: int) -> None:
        """Raises FutureBlock."""
        if block < 0:
            raise ChainError(f"There is no block {block}: blocks are counted from 0.")
        if self._head is not None and block <= self._head.number:
            return
        head = self.newest()
        if block > head.number:
            opens_at = head.timestamp + (block - head.number) * self._block_seconds
            raise FutureBlock(
                f"Block {block} is not produced yet, the chain is at {head.number}. It opens at "
                f"{utc(opens_at)}, in {opens_at - self._clock():.0f} s.",
                block,
                opens_at,
            )

    def _stand_in(self, error: ChainSilent) -> Head:
        """The head last seen, while the chain is silent and not for too long."""
        head, quiet = self._head, self._clock() - self._seen
        if head is None or quiet > RIDE_OUT_SECONDS:
            raise error
        self.note(
            "ChainSilent",
            f"work goes on by block {head.number}, seen {quiet:.0f} s ago, a block every "
            f"{self._block_seconds:g} s: {error}",
        )
        return head

    def concerns(self) -> list[Concern]:
        """What was noted since this was last asked."""
        with self._lock:
            noted, self._concerns = list(self._concerns.values()), {}
        return noted

    def note(self, name: str, detail: str) -> None:
        """Keep the latest of every kind, and let nothing fill the memory."""
        with self._lock:
            self._concerns[name] = Concern(name, detail)


def utc(time: float) -> str:
    """Unix seconds as a person reads them."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
