"""Copy detection: how many completions two miners share, and who copied whom (§13).

Digests are fixed 32-byte values. The overlap of all pairs of a window comes out of a few whole-
column operations, whatever the miners share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

WINDOW_THRESHOLD: Final = 0.05
INTERVAL_THRESHOLD: Final = 0.03
DIGEST_BYTES: Final = 32
_DENSE_ROWS: Final = 4096

Scope = Literal["window", "interval"]
Pair = tuple[str, str]
_K = TypeVar("_K")


@dataclass(frozen=True)
class MinerCompletions:
    """One validated miner's file. digests: binary(32), one a row with tokens, repeats included
    (`digest_array`). total: rows of the file. uploaded: LastModified in unix seconds, if known."""

    digests: pa.FixedSizeBinaryArray
    total: int
    uploaded: float | None


@dataclass(frozen=True)
class Overlap:
    """What two miners share in a window, or in an interval up to a window.

    pair: sorted hotkeys. denominator: rows of the smaller file. copier, victim: whom the network
    gates and spares, None below the threshold or without a direction. windrow_copier: who uploaded
    later, in the windows in which they shared them, what alone reaches the threshold; None where
    both did. The network goes by the latest upload times of the interval instead, so that a copier
    can have its victim gated.
    """

    pair: Pair
    shared: int
    denominator: int
    scope: Scope
    window_start: int
    copier: str | None
    victim: str | None
    windrow_copier: str | None

    @property
    def threshold(self) -> float:
        return WINDOW_THRESHOLD if self.scope == "window" else INTERVAL_THRESHOLD

    @property
    def ratio(self) -> float:
        return self.shared / self.denominator

    @property
    def violates(self) -> bool:
        return self.ratio >= self.threshold


@dataclass(frozen=True)
class Interval:
    """What is remembered of a submission interval.

    shared: by pair. totals: rows by hotkey. uploaded: latest known upload by hotkey. copied: by
    (later, earlier uploader), what they shared in windows with that order.
    """

    id: int | None = None
    shared: Mapping[Pair, int] = field(default_factory=lambda: MappingProxyType({}))
    totals: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    uploaded: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    copied: Mapping[Pair, int] = field(default_factory=lambda: MappingProxyType({}))

    def entering(self, interval: int) -> "Interval":
        """The interval to go on with: this one, or an empty one where another begins."""
        return self if interval == self.id else Interval(interval)


@dataclass(frozen=True)
class CopyReport:
    """All overlapping pairs of a window and of its interval so far."""

    window: tuple[Overlap, ...]
    interval: tuple[Overlap, ...]

    @property
    def network_copiers(self) -> set[str]:
        """Hotkeys the network gates in this window (§13.5)."""
        return {o.copier for o in (*self.window, *self.interval) if o.copier is not None}

    @property
    def windrow_copiers(self) -> set[str]:
        found = (*self.window, *self.interval)
        return {o.windrow_copier for o in found if o.windrow_copier is not None}


def digest_array(digests: Iterable[str | None]) -> pa.FixedSizeBinaryArray:
    """Hex digests of `sampling.completion_digests` as binary(32); rows without one are left out."""
    kept = [digest for digest in digests if digest is not None]
    buffer = pa.py_buffer(bytes.fromhex("".join(kept)))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(kept), [None, buffer])


def shared_completions(digests: Sequence[pa.FixedSizeBinaryArray]) -> NDArray[np.int64]:
    """How many completions each two of m miners share, with multiplicity: int64 [m, m] (§13.3).

    A digest that one holds a times and the other b times counts min(a, b). The diagonal is 0.
    """
    miners = len(digests)
    encoded = pa.chunked_array(digests, pa.binary(DIGEST_BYTES)).dictionary_encode()
    codes = encoded.combine_chunks().indices.to_numpy().astype(np.int64)
    holders = np.repeat(np.arange(miners), [len(column) for column in digests])
    repeated = np.bincount(codes)[codes] > 1 if len(codes) else np.zeros(0, np.bool_)
    held, counts = np.unique(codes[repeated] * miners + holders[repeated], return_counts=True)
    shared = np.zeros((miners, miners), np.int64)
    level = 0
    # min(a, b) is the number of levels 1, 2, ... that both reach; equal levels are taken at once.
    while True:
        several = _repeated_neighbours(held // miners)
        held, counts = held[several], counts[several]
        if not len(held):
            break
        step = int(counts.min())
        shared += (step - level) * _held_together(held, miners)
        above = counts > step
        held, counts, level = held[above], counts[above], step
    np.fill_diagonal(shared, 0)
    return shared


def observe(
    interval: Interval, window: int, submissions: Mapping[str, MinerCompletions]
) -> tuple[Interval, CopyReport]:
    """One window's submissions against each other, and the interval that includes them (§13).

    submissions: of the miners validated successfully, by hotkey.
    """
    hotkeys = sorted(submissions)
    matrix = shared_completions([submissions[hotkey].digests for hotkey in hotkeys])
    found = {
        (hotkeys[a], hotkeys[b]): int(matrix[a, b]) for a, b in np.argwhere(np.triu(matrix, 1))
    }
    times = {h: s.uploaded for h, s in submissions.items() if s.uploaded is not None}
    totals = {h: s.total for h, s in submissions.items()}
    copied = {order: found[pair] for pair in found if (order := _later_first(pair, times))}
    after = replace(
        interval,
        shared=_added(interval.shared, found),
        totals=_added(interval.totals, totals),
        uploaded=MappingProxyType({**interval.uploaded, **times}),
        copied=_added(interval.copied, copied),
    )
    report = CopyReport(
        window=_overlaps(found, totals, times, copied, "window", window),
        interval=_overlaps(
            after.shared, after.totals, after.uploaded, after.copied, "interval", window
        ),
    )
    return after, report


def _overlaps(
    shared: Mapping[Pair, int],
    totals: Mapping[str, int],
    uploaded: Mapping[str, float],
    copied: Mapping[Pair, int],
    scope: Scope,
    window: int,
) -> tuple[Overlap, ...]:
    overlaps = []
    for pair, count in sorted(shared.items()):
        denominator = min(totals[pair[0]], totals[pair[1]])
        if denominator <= 0:
            continue
        overlap = Overlap(pair, count, denominator, scope, window, None, None, None)
        order = _later_first(pair, uploaded) if overlap.violates else None
        copier, victim = order or (None, None)
        proven = [
            later
            for later, earlier in (pair, pair[::-1])
            if copied.get((later, earlier), 0) / denominator >= overlap.threshold
        ]
        windrow_copier = proven[0] if len(proven) == 1 else None
        overlaps.append(
            replace(overlap, copier=copier, victim=victim, windrow_copier=windrow_copier)
        )
    return tuple(overlaps)


def _later_first(pair: Pair, uploaded: Mapping[str, float]) -> Pair | None:
    """The pair as (later, earlier uploader), None where the times do not tell."""
    a, b = pair
    if a not in uploaded or b not in uploaded or uploaded[a] == uploaded[b]:
        return None
    return (a, b) if uploaded[a] > uploaded[b] else (b, a)


def _repeated_neighbours(codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [n]: sorted codes that occur more than once."""
    repeated = np.zeros(len(codes), np.bool_)
    same = codes[1:] == codes[:-1]
    repeated[1:] |= same
    repeated[:-1] |= same
    return repeated


def _held_together(held: NDArray[np.int64], miners: int) -> NDArray[np.int64]:
    """How many digests each two miners both hold: int64 [miners, miners].

    held: sorted digest * miners + miner, each once.
    """
    codes, holders = held // miners, held % miners
    rows = np.concatenate([[0], np.cumsum(codes[1:] != codes[:-1])])
    together = np.zeros((miners, miners), np.int64)
    for start in range(0, int(rows[-1]) + 1, _DENSE_ROWS):
        first, last = np.searchsorted(rows, [start, start + _DENSE_ROWS])
        # float32 goes through BLAS and is exact for counts up to _DENSE_ROWS.
        held_by = np.zeros((_DENSE_ROWS, miners), np.float32)
        held_by[rows[first:last] - start, holders[first:last]] = 1.0
        together += (held_by.T @ held_by).astype(np.int64)
    return together


def _added(counts: Mapping[_K, int], more: Mapping[_K, int]) -> Mapping[_K, int]:
    total = dict(counts)
    for key, count in more.items():
        total[key] = total.get(key, 0) + count
    return MappingProxyType(total)
