"""The columns of a window's rollouts as numpy arrays, nulls told apart from values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


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
    """The columns of n rollouts that the checks share, taken apart once.

    prompt_lengths, completion_lengths: int64 [n], nulls as 0.
    """

    table: pa.Table
    tokens: ListColumn
    sketches: ListColumn
    logprobs: ListColumn
    prompt_lengths: NDArray[np.int64]
    completion_lengths: NDArray[np.int64]

    @classmethod
    def of(cls, rollouts: pa.Table) -> "RolloutColumns":
        """rollouts: FLAT_SCHEMA."""
        table = rollouts.combine_chunks()

        def lists(name: str) -> ListColumn:
            return ListColumn.of(table.column(name).combine_chunks())

        def lengths(name: str) -> NDArray[np.int64]:
            return plain(table.column(name).combine_chunks()).astype(np.int64)

        return cls(
            table=table,
            tokens=lists("tokens"),
            sketches=lists("sketches"),
            logprobs=lists("token_logprobs"),
            prompt_lengths=lengths("prompt_length"),
            completion_lengths=lengths("completion_length"),
        )

    def completion_logprobs(self) -> NDArray[np.float64]:
        """Claimed log-probs summed over each completion, float64 [n]."""
        rows = np.repeat(np.arange(len(self.logprobs.lengths)), self.logprobs.lengths)
        values = np.where(self.logprobs.within(self.prompt_lengths), self.logprobs.values, 0.0)
        sums = np.bincount(rows, values, minlength=len(self.logprobs.lengths))
        return np.asarray(sums, np.float64)

    def column(self, name: str) -> pa.Array:
        return self.table.column(name).combine_chunks()


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
