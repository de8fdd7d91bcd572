"""The columns of a window's rollouts as numpy arrays, nulls told apart from values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windrow.networks.grail.commitments import compact_text, decode_sketches, encode_compact

Mask = NDArray[np.bool_]

_ENCODED_ROWS: Final = 256


@dataclass(frozen=True)
class ListColumn:
    """A list column taken apart. n rows, m elements in all.

    values: the elements [m], nulls as 0. missing: bool [m], elements that are null.
    lengths, starts: int64 [n]; a null list has length 0. valid: bool [n], lists that are not null.
    """

    values: NDArray[Any]
    missing: Mask
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]
    valid: Mask

    @classmethod
    def of(cls, column: pa.ListArray) -> "ListColumn":
        elements = column.flatten()
        lengths = plain(pc.list_value_length(column)).astype(np.int64)
        return cls(
            values=plain(elements),
            missing=is_null(elements),
            lengths=lengths,
            starts=np.cumsum(lengths) - lengths,
            valid=~is_null(column),
        )

    def rows_with(self, elements: Mask) -> Mask:
        """bool [n]: rows that hold one of the marked elements (bool [m])."""
        found = np.zeros(len(self.lengths), np.bool_)
        positions = np.flatnonzero(elements)
        # Rows without elements share their start with the next row, which is the one that counts.
        found[np.searchsorted(self.starts, positions, side="right") - 1] = True
        return found

    def within(self, first: NDArray[np.int64]) -> Mask:
        """bool [m]: elements at or after position `first` (int64 [n]) of their own list."""
        return np.arange(len(self.values)) >= np.repeat(self.starts + first, self.lengths)

    def row(self, row: int) -> NDArray[Any]:
        """One row's elements."""
        return self.values[self.starts[row] : self.starts[row] + self.lengths[row]]


@dataclass(frozen=True)
class RolloutColumns:
    """The columns of n rollouts that the checks share, taken apart once; sketches when asked for.

    prompt_lengths, completion_lengths: int64 [n], nulls as 0.
    """

    table: pa.Table
    tokens: ListColumn
    logprobs: ListColumn
    prompt_lengths: NDArray[np.int64]
    completion_lengths: NDArray[np.int64]

    @classmethod
    def of(cls, rollouts: pa.Table) -> "RolloutColumns":
        """rollouts: FLAT_SCHEMA, or READ_SCHEMA, whose sketches are numbers once they are used."""
        table = in_one_piece(rollouts)

        def lists(name: str) -> ListColumn:
            return ListColumn.of(table.column(name).combine_chunks())

        def lengths(name: str) -> NDArray[np.int64]:
            return plain(table.column(name).combine_chunks()).astype(np.int64)

        return cls(
            table=table,
            tokens=lists("tokens"),
            logprobs=lists("token_logprobs"),
            prompt_lengths=lengths("prompt_length"),
            completion_lengths=lengths("completion_length"),
        )

    @cached_property
    def sketches(self) -> ListColumn:
        if "sketches" in self.table.column_names:
            return ListColumn.of(self.column("sketches"))
        none = pa.array([], pa.list_(pa.int64()))
        chunks = map(decode_sketches, self.table.column("commitments").chunks)
        return ListColumn.of(pa.concat_arrays([none, *chunks]))

    def compact_commitments(self, rows: Sequence[int]) -> Iterator[bytes]:
        """What the network hashes of these rows' commitments (§5.2).

        Raises CommitmentsError where a row lacks a sketch.
        """
        if "sketches" not in self.table.column_names:
            texts = self.table.column("commitments")
            yield from (compact_text(texts[int(row)]) for row in rows)
            return
        sketches = self.column("sketches")
        for start in range(0, len(rows), _ENCODED_ROWS):
            part = sketches.take(pa.array(rows[start : start + _ENCODED_ROWS], pa.int64()))
            yield from (text.as_buffer().to_pybytes() for text in encode_compact(part))

    def completion_logprobs(self) -> NDArray[np.float64]:
        """Claimed log-probs summed over each completion, float64 [n]."""
        rows = np.repeat(np.arange(len(self.logprobs.lengths)), self.logprobs.lengths)
        values = np.where(self.logprobs.within(self.prompt_lengths), self.logprobs.values, 0.0)
        sums = np.bincount(rows, values, minlength=len(self.logprobs.lengths))
        return np.asarray(sums, np.float64)

    def column(self, name: str) -> pa.Array:
        return self.table.column(name).combine_chunks()


def in_one_piece(rollouts: pa.Table) -> pa.Table:
    """The table with each column in one chunk, but for commitments, most of a file's bytes."""
    columns = {
        name: column if name == "commitments" else column.combine_chunks()
        for name, column in zip(rollouts.column_names, rollouts.columns, strict=True)
    }
    return pa.table(columns, schema=rollouts.schema)


def rows_at(rollouts: pa.Table, rows: Sequence[int]) -> pa.Table:
    """The rows at ascending positions, without a copy of any."""
    starts = [n for n, row in enumerate(rows) if n == 0 or row != rows[n - 1] + 1]
    runs = [
        rollouts.slice(rows[start], end - start) for start, end in pairwise([*starts, len(rows)])
    ]
    return pa.concat_tables([rollouts.schema.empty_table(), *runs])


def plain(column: pa.Array) -> NDArray[Any]:
    """A number or bool column as numpy, nulls as 0."""
    zero = pa.scalar(False if pa.types.is_boolean(column.type) else 0, column.type)
    filled = column.fill_null(zero) if column.null_count else column
    return np.asarray(filled.to_numpy(zero_copy_only=False))


def is_null(column: pa.Array) -> Mask:
    """bool [n]: which values are null; nan is not."""
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False))


def matches(column: pa.Array, pattern: str) -> Mask:
    """bool [n]: texts that match a regular expression; a null does not."""
    found = pc.fill_null(pc.match_substring_regex(column, pattern), False)
    return np.asarray(found.to_numpy(zero_copy_only=False))


def equals(column: pa.Array, value: Any) -> Mask:
    """bool [n]: values equal to one value, or to those of an equally long column; null is not."""
    found = pc.fill_null(pc.equal(column, value), False)
    return np.asarray(found.to_numpy(zero_copy_only=False))
