"""Everything that refuses a window file before its rows are read.

A file comes from anyone with a bucket (grail-protocol §8.2, §11.1). Size, claimed counts, what the
pages expand to, columns and their types are all settled here before the first row is read.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from windrow import WindrowError
from windrow.networks.grail.commitment_texts import MIN_ENTRY_BYTES, entry_counts
from windrow.networks.grail.constants import MAX_FILE_BYTES
from windrow.networks.grail.parquet_bounds import (
    FRONT_CODED_ROWS,
    BrokenStream,
    DamagedParquet,
    ExcessivePages,
    Footer,
    PageBudget,
    read_footer,
)

MIN_PARQUET_BYTES: Final = 12
MAX_ROWS: Final = 2**18
MAX_COLUMNS: Final = 64
_GROUP_ROWS: Final = 4096
MAX_ROW_GROUPS: Final = 2**12
MAX_VALUES: Final = 2**26
MAX_ROW_VALUES: Final = 2**17
"""Tokens of a file and of one row. A full file of honest rows has some 4e7; no rollout is longer
than the longest prompt and 8192 tokens."""

MAX_EXPANDED_BYTES: Final = 3 * 2**29  # 1.5 GiB; a full 350 MiB file of honest rows takes 0.9
EXPANSION_ALLOWANCE: Final = (256 * 2**20, 16)
"""A file may expand to the first number plus the second times its size, so that memory has to be
paid for with bytes uploaded; honest rows expand threefold."""

UNREADABLE: Final = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises on a damaged file."""

_CORRUPT: Final = "corrupt_parquet"
_NEVER_NULL: Final = (
    ("commit",),
    ("commit", "model"),
    ("commit", "rollout"),
    ("commit", "tokens"),
    ("commit", "rollout", "token_logprobs"),
)


class WindowFileError(WindrowError):
    """A window file that cannot be written or read.

    network_reason: the reason a Grail validator records when it bans for this file
    (grail-validation §3.5), None where it ignores the file without a ban.
    limit: True where a bound of this reader stopped it, so that the network's word is not known.
    """

    limit = False

    def __init__(self, message: str, *, network_reason: str | None = None) -> None:
        super().__init__(message)
        self.network_reason = network_reason


class CorruptWindowFile(WindowFileError):
    """Not a Parquet file, damaged, or with a null rollout_group."""


class FileTooLarge(WindowFileError):
    """More bytes than validators fetch."""


class OversizedWindowFile(WindowFileError):
    """More rows, columns or expanded values than this reader takes on."""

    limit = True


class UnknownWindowFile(WindowFileError):
    """A column type or value of which it is not known what the network makes."""

    limit = True


class MistypedWindowFile(WindowFileError):
    """A column, text or metadata that cannot be decoded."""


class IncompleteRollouts(WindowFileError):
    """Rollouts that must not be written: none at all, or a value that is null."""


@dataclass(frozen=True)
class GuardedParquet:
    """An untrusted window file that is safe to read in batches: pyarrow's ParquetFile, the footer.

    batch_rows, batch_bytes: most rows of a batch, and most bytes of all batches together; None
    where the pages alone bound them.
    """

    parquet: Any
    footer: Footer
    batch_rows: int | None
    batch_bytes: int | None


def open_parquet(file: pa.NativeFile) -> GuardedParquet:
    """Everything that can be settled about an untrusted window file before its rows are read.

    Raises CorruptWindowFile, OversizedWindowFile or MistypedWindowFile.
    """
    size = file.size()
    if size > MAX_FILE_BYTES:
        raise FileTooLarge(
            f"window file of {size} bytes; validators ignore more than {MAX_FILE_BYTES}"
        )
    if size < MIN_PARQUET_BYTES:
        raise corrupt(f"{size} bytes are too few for a Parquet file")
    try:
        footer = read_footer(file)
        budget = _charged(file, footer)
        parquet = pq.ParquetFile(file)
        _refuse_null_groups(parquet, FRONT_CODED_ROWS if budget.front_coded else _GROUP_ROWS)
    except (DamagedParquet, *UNREADABLE) as error:
        raise unreadable("unreadable", error) from error
    except ExcessivePages as error:
        raise OversizedWindowFile(f"window file refused before reading: {error}") from error
    if not budget.front_coded:
        return GuardedParquet(parquet, footer, None, None)
    return GuardedParquet(parquet, footer, FRONT_CODED_ROWS, budget.limit)


def refuse_null_parts(batch: pa.RecordBatch, first_row: int) -> None:
    """Raise MistypedWindowFile where a row lacks a part that the network takes apart on reading.

    A null commit, model, rollout, list of tokens or of log-probs in any row loses the whole file
    (grail-validation §27).
    """
    for path in _NEVER_NULL:
        column = _part(batch, path)
        if column is not None and column.null_count:
            row = first_row + column.is_null().index(True).as_py()
            raise MistypedWindowFile(
                f"window file row {row} has no {'.'.join(path)}, so that the network cannot "
                "decode the file"
            )


def _part(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array | None:
    """A column or a field of a struct in it, None where there is none."""
    position = batch.schema.get_field_index(path[0])
    if position < 0:
        return None
    column = batch.column(position)
    for name in path[1:]:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(name) < 0:
            return None
        column = pc.struct_field(column, name)
    return column


def refuse_invalid_text(batch: pa.RecordBatch, first_row: int) -> None:
    """Raise MistypedWindowFile where a text of a batch is not UTF-8."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise MistypedWindowFile(
                f"window file column {name}, from row {first_row}: {error}"
            ) from error


def refuse_long_rows(rows: pa.RecordBatch, first_row: int) -> None:
    """Raise OversizedWindowFile where a row has more values than any rollout has tokens.

    rows: READ_SCHEMA. What is made of a row grows with it, whatever few bytes it was stored in.
    """
    texts = rows.column("commitments")
    # Only a text of so many bytes can have too many entries, and no honest one has as many.
    longest_text = pc.max(pc.binary_length(texts)).as_py() or 0
    counts = {
        name: pc.list_value_length(rows.column(name)) for name in ("tokens", "token_logprobs")
    }
    if longest_text > MAX_ROW_VALUES * MIN_ENTRY_BYTES:
        counts["sketches"] = entry_counts(texts)
    for name, lengths in counts.items():
        longest = pc.max(lengths).as_py() or 0
        if longest > MAX_ROW_VALUES:
            row = first_row + pc.index(lengths, longest).as_py()
            raise OversizedWindowFile(
                f"window file row {row} has {longest} {name}; at most {MAX_ROW_VALUES} are read"
            )


def leaf_types(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Types by dotted path, structs taken apart; names that occur twice in one place left out."""
    types: dict[str, pa.DataType] = {}
    pending = [("", list(schema))]
    while pending:
        prefix, fields = pending.pop()
        occurrences = Counter(field.name for field in fields)
        for field in fields:
            if occurrences[field.name] > 1:
                continue
            if pa.types.is_struct(field.type):
                pending.append((f"{prefix}{field.name}.", list(field.type)))
            else:
                types[prefix + field.name] = field.type
    return types


def unreadable(what: str, error: Exception) -> WindowFileError:
    """The error for a file that the Parquet library cannot read.

    The network bans for what the library calls invalid. What it reports as the operating system
    does, such as a page that cannot be decompressed, ends further out: the file is ignored (§27).
    """
    if isinstance(error, OSError | BrokenStream):
        return MistypedWindowFile(f"window file is damaged: {what}: {error}"[:500])
    return corrupt(what, error)


def corrupt(what: str, error: Exception | None = None) -> CorruptWindowFile:
    """The error for a file that a validator bans for as corrupt_parquet."""
    detail = f": {error}" if error else ""
    return CorruptWindowFile(
        f"not a usable window file: {what}{detail}"[:500], network_reason=_CORRUPT
    )


def _charged(file: pa.NativeFile, footer: Footer) -> PageBudget:
    """What the file expands to; raises ExcessivePages, OversizedWindowFile, DamagedParquet."""
    for count, most, what in (
        (footer.rows, MAX_ROWS, "rows"),
        (len(footer.group_rows), MAX_ROW_GROUPS, "row groups"),
        (len(footer.columns), MAX_COLUMNS * len(footer.group_rows), "columns"),
    ):
        if not 0 <= count <= most:
            raise OversizedWindowFile(f"window file claims {count} {what}; at most {most} are read")
    values: Counter[str] = Counter()
    for column in footer.columns:
        values[column.path] += column.values
    if max(values.values(), default=0) > MAX_VALUES:
        path, count = values.most_common(1)[0]
        raise OversizedWindowFile(
            f"window file claims {count} values in column {path}; at most {MAX_VALUES} are read"
        )
    if sum(footer.group_rows) != footer.rows:
        raise corrupt("the row groups do not add up to the rows claimed")
    base, factor = EXPANSION_ALLOWANCE
    budget = PageBudget(file, min(MAX_EXPANDED_BYTES, base + factor * file.size()))
    for column in footer.columns:
        budget.charge(column)
    return budget


def wire_form(found: pa.DataType) -> pa.DataType:
    """The wire's type for the other Arrow forms that writers give texts and lists."""
    if pa.types.is_dictionary(found):
        return wire_form(found.value_type)
    if pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return pa.string()
    if pa.types.is_large_list(found):
        return pa.list_(found.value_type)
    return found


def _refuse_null_groups(parquet: Any, rows: int) -> None:
    if "rollout_group" not in parquet.schema_arrow.names:
        return  # every row's is null then, which a later rule bans for (grail-validation §5)
    first_row = 0
    for batch in parquet.iter_batches(rows, columns=["rollout_group"], use_threads=False):
        if batch.num_columns != 1:
            raise corrupt("its pages and its schema name different columns")
        if batch.column(0).null_count:
            row = first_row + batch.column(0).is_null().index(True).as_py()
            raise corrupt(f"a row without a rollout_group: row {row}")
        first_row += batch.num_rows
