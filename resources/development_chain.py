"""A chain on this machine: seeded hashes, a real or a stepped clock, state shared by processes.

The schedule of blocks is a list of anchors. From an anchor on, a block comes every
`block_seconds`; `advance_to` adds an anchor, so that a demo may jump to the next window while the
clock goes on running.
"""

import contextlib
import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from windrow.networks.grail.constants import DEADLINE_SLACK_SECONDS, WINDOW_BLOCKS
from windrow.resources.chain import (
    MAX_COMMITMENT_BYTES,
    ChainError,
    CommitmentRefused,
    Concern,
    FutureBlock,
    SetWeights,
    UnknownSubnet,
    WeightsRefused,
)
from windrow.resources.files import naming_disk_errors

LOCK_SECONDS = 30.0

_TABLES = """
CREATE TABLE IF NOT EXISTS identity(
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seed TEXT NOT NULL, genesis REAL NOT NULL, block_seconds REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS anchors(block INTEGER PRIMARY KEY, time REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS commitments(hotkey TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS weights(
    hotkey TEXT PRIMARY KEY, block INTEGER NOT NULL, weights TEXT NOT NULL
) STRICT;
"""


class ChainStateMismatch(ChainError):
    """The state file belongs to a chain with another seed, genesis or block time."""


@dataclass(frozen=True)
class Anchor:
    """A block whose time is fixed; later blocks follow it every `block_seconds`."""

    block: int
    time: float


class DevelopmentChain:
    """A `Chain` whose state is one SQLite file, safe for any number of processes.

    genesis: unix seconds of block 0. stepped: the chain stands still until `advance_to`.
    clock: unix seconds; tests hand in their own.
    Raises ChainStateMismatch when the file was made for another chain.
    """

    def __init__(
        self,
        path: Path,
        *,
        seed: str,
        genesis: float,
        block_seconds: float = 12.0,
        stepped: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._seed = seed
        self._block_seconds = block_seconds
        self._stepped = stepped
        self._clock = clock
        self._known: tuple[list[tuple[int, int, int] | None], list[Anchor]] | None = None
        with naming_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._state() as state:
            state.execute("PRAGMA journal_mode = WAL")
            state.executescript(_TABLES)
        self._claim(genesis)

    def now(self) -> float:
        return self._clock()

    def block(self) -> int:
        return self._height(self._anchors())

    def expected_block(self) -> int:
        return self.block()

    def concerns(self) -> list[Concern]:
        return []

    def block_hash(self, block: int) -> str:
        self._require_produced(block, self._anchors())
        text = f"windrow development chain\n{self._seed}\n{block}"
        return "0x" + hashlib.sha256(text.encode()).hexdigest()

    def timestamp(self, block: int) -> float:
        anchors = self._anchors()
        self._require_produced(block, anchors)
        return self._scheduled(block, anchors)

    def block_at_time(self, time: float) -> int:
        anchors = self._anchors()
        height = self._height(anchors)
        if time > self._clock():
            raise ChainError(
                f"Which block is newest at {_utc(time)} is not known yet: that time is to come."
            )
        if self._scheduled(height, anchors) <= time:
            return height
        index = max((i for i, anchor in enumerate(anchors) if anchor.time <= time), default=None)
        if index is None:
            raise ChainError(
                f"{_utc(time)} is before the first block of this chain, at {_utc(anchors[0].time)}."
            )
        block = self._after(anchors[index], time)
        return min(block, anchors[index + 1].block - 1) if index + 1 < len(anchors) else block

    def deadline(self, window: int) -> float:
        return self._scheduled(window + WINDOW_BLOCKS, self._anchors()) + DEADLINE_SLACK_SECONDS

    def advance_to(self, block: int) -> int:
        """Move the chain on to a block at once, if it is not there yet; returns its height.

        The blocks jumped over and the block itself are stamped 4 s ahead of the clock, the slack
        of an upload deadline: what was uploaded before the jump stays on time, what comes after
        is late.
        """
        with self._state() as state:
            state.execute("BEGIN IMMEDIATE")
            anchors = self._read_anchors(state)
            height = self._height(anchors)
            if block > height:
                landing = max(
                    self._clock() - DEADLINE_SLACK_SECONDS, self._scheduled(height, anchors)
                )
                state.execute("INSERT INTO anchors VALUES (?, ?)", (block, landing))
            state.execute("COMMIT")
        self._known = None  # times of files may be too coarse to tell
        return max(block, height)

    def commit(self, hotkey: str, text: str) -> None:
        size = len(text.encode())
        if not 0 < size <= MAX_COMMITMENT_BYTES:
            raise CommitmentRefused(
                f"A commitment has 1 to {MAX_COMMITMENT_BYTES} bytes, this one of {hotkey} {size}."
            )
        with self._state() as state:
            state.execute("INSERT OR REPLACE INTO commitments VALUES (?, ?)", (hotkey, text))

    def commitment(self, hotkey: str) -> str | None:
        with self._state() as state:
            row = state.execute(
                "SELECT text FROM commitments WHERE hotkey = ?", (hotkey,)
            ).fetchone()
        return None if row is None else str(row[0])

    def set_weights(self, hotkey: str, weights: Mapping[str, float]) -> None:
        if not all(0.0 <= weight <= 1.0 for weight in weights.values()):
            raise WeightsRefused(f"Weights set by {hotkey} must be numbers from 0 to 1 each.")
        total = math.fsum(weights.values())
        if not 0.0 < total <= 1.0 + 1e-9:
            raise WeightsRefused(
                f"Weights set by {hotkey} must add up to more than 0 and at most 1, not {total}."
            )
        with self._state() as state:
            state.execute(
                "INSERT OR REPLACE INTO weights VALUES (?, ?, ?)",
                (hotkey, self.block(), json.dumps(dict(weights), sort_keys=True)),
            )

    def weights(self, hotkey: str) -> SetWeights | None:
        with self._state() as state:
            row = state.execute(
                "SELECT block, weights FROM weights WHERE hotkey = ?", (hotkey,)
            ).fetchone()
        return None if row is None else SetWeights(int(row[0]), json.loads(row[1]))

    def membership(self, netuids: Mapping[str, int], hotkey: str) -> NoReturn:  # noqa: ARG002
        """Raises UnknownSubnet: nobody registers here."""
        raise UnknownSubnet(
            "the development chain has no subnets, so nobody is registered on any; set "
            "WINDROW_CHAIN=bittensor"
        )

    @contextlib.contextmanager
    def _state(self) -> Iterator[sqlite3.Connection]:
        # One short connection a call: no connection is shared between threads or forked processes.
        try:
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                yield connection
        except sqlite3.Error as error:
            raise ChainError(
                f"The chain's state in {self._path} cannot be used: {error}. If it is damaged, "
                "delete it and the chain starts again with the same blocks."
            ) from error

    def _claim(self, genesis: float) -> None:
        """Write this chain's identity into a new file, or compare it with an old one's."""
        wanted = (self._seed, genesis, self._block_seconds)
        height = math.floor((self._clock() - genesis) / self._block_seconds)
        if height < 0:
            raise ChainError(f"The chain's genesis, {_utc(genesis)}, is still to come.")
        with self._state() as state:
            state.execute("BEGIN IMMEDIATE")
            state.execute("INSERT OR IGNORE INTO identity VALUES (1, ?, ?, ?)", wanted)
            state.execute("INSERT OR IGNORE INTO anchors VALUES (0, ?)", (genesis,))
            # A stepped chain stands where the clock was when it was made.
            if self._stepped and len(self._read_anchors(state)) == 1 and height > 0:
                start = (height, genesis + height * self._block_seconds)
                state.execute("INSERT INTO anchors VALUES (?, ?)", start)
            found = state.execute("SELECT seed, genesis, block_seconds FROM identity").fetchone()
            state.execute("COMMIT")
        if found != wanted:
            raise ChainStateMismatch(
                f"{self._path} belongs to a chain with seed, genesis and block seconds {found}; "
                f"the settings say {wanted}. Restore the settings or delete the file."
            )

    def _anchors(self) -> list[Anchor]:
        """The schedule, read again when the state's files have changed."""
        known, now = self._known, self._files()
        if known is None or known[0] != now:
            with self._state() as state:
                self._known = known = (now, self._read_anchors(state))
        return known[1]

    def _files(self) -> list[tuple[int, int, int] | None]:
        """What tells one state of the file and of its log of changes from another."""
        found: list[tuple[int, int, int] | None] = []
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                found.append(None)
            else:
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found

    @staticmethod
    def _read_anchors(state: sqlite3.Connection) -> list[Anchor]:
        return [
            Anchor(*row) for row in state.execute("SELECT block, time FROM anchors ORDER BY block")
        ]

    def _after(self, anchor: Anchor, time: float) -> int:
        return anchor.block + math.floor((time - anchor.time) / self._block_seconds)

    def _height(self, anchors: list[Anchor]) -> int:
        last = anchors[-1]
        # Right after a jump the anchor's stamp is still a moment ahead.
        return last.block if self._stepped else max(last.block, self._after(last, self._clock()))

    def _scheduled(self, block: int, anchors: list[Anchor]) -> float:
        """When a block was or is expected; one that was jumped over came with the jump's target."""
        index = max(i for i, anchor in enumerate(anchors) if anchor.block <= block)
        due = anchors[index].time + (block - anchors[index].block) * self._block_seconds
        return min(due, anchors[index + 1].time) if index + 1 < len(anchors) else due

    def _require_produced(self, block: int, anchors: list[Anchor]) -> None:
        if block < 0:
            raise ChainError(f"There is no block {block}: blocks are counted from 0.")
        height = self._height(anchors)
        if block <= height:
            return
        if self._stepped:
            raise FutureBlock(
                f"Block {block} is not produced yet, the chain stands at {height}. It moves only "
                "when it is advanced.",
                block,
                None,
            )
        opens_at = self._scheduled(block, anchors)
        raise FutureBlock(
            f"Block {block} is not produced yet, the chain is at {height}. It opens at "
            f"{_utc(opens_at)}, in {opens_at - self._clock():.0f} s.",
            block,
            opens_at,
        )


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
