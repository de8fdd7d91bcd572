"""The window file: one Parquet object a miner and window (grail-protocol §8).

Writing takes flat record batches and makes one row group, as the network's own writer does.
Reading takes a file that anyone may have uploaded: what it can expand to is bounded before a
value is read, and rows then come in batches. Reading a whole file holds at most twice the bound
that window_guards sets.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import BinaryIO, Final, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.foreign_types import ForeignRow, is_foreign, to_wire
from windrow.networks.grail.parquet_bounds import Footer
from windrow.networks.grail.window_guards import (
    MAX_ROWS,
    UNREADABLE,
    GuardedParquet,
    IncompleteRollouts,
    MistypedWindowFile,
    OversizedWindowFile,
    open_parquet,
    refuse_invalid_text,
    refuse_long_rows,
    refuse_null_parts,
    unreadable,
)
from windrow.networks.grail.window_schema import (
    FLAT_SCHEMA,
    READ_SCHEMA,
    WIRE_SCHEMA,
    IrregularText,
    flat_to_wire,
    wire_to_read,
    with_sketches,
)

Source: TypeAlias = str | PathLike[str] | bytes | BinaryIO
"""A path, the file's bytes, or a seekable binary file."""

BATCH_ROWS: Final = 256
DICTIONARY_BYTES: Final = 256 * 1024
"""Room for 65,536 distinct tokens; log-probs, which hardly repeat, are soon written plain."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class WindowHeader:
    """A file's own statement about itself; only wallet and window_start are ever checked.

    A key that is absent is None. timestamp: unix seconds. rows: counted by the footer.
    """

    wallet: str | None
    window_start: int | None
    window_length: int | None
    inference_count: int | None
    timestamp: float | None
    rows: int


@dataclass(frozen=True)
class WindowFile:
    """A window file in memory.

    rows: READ_SCHEMA, every text checked, which is all that most rows are read for; FLAT_SCHEMA
    serves as well. irregular: texts the columns cannot carry. foreign: one for each row of a file
    whose commits have other columns than the protocol's; none else.
    """

    header: WindowHeader
    rows: pa.Table
    irregular: tuple[IrregularText, ...]
    foreign: tuple[ForeignRow, ...] = ()

    @cached_property
    def rollouts(self) -> pa.Table:
        """FLAT_SCHEMA: all rows with the numbers of their sketches."""
        return with_sketches(self.rows)


@dataclass
class WindowReader:
    """A window file open for reading; `irregular` and `foreign` fill as batches are drawn."""

    header: WindowHeader
    _file: GuardedParquet = field(repr=False)
    irregular: list[IrregularText] = field(default_factory=list)
    foreign: list[ForeignRow] = field(default_factory=list)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Batches of READ_SCHEMA of at most `rows` rows, in file order; may be drawn again.

        Raises CorruptWindowFile on damaged data, MistypedWindowFile on what the network cannot
        decode, OversizedWindowFile on a row longer than any rollout, and UnknownWindowFile where
        it is not known what the network makes of a column.
        """
        self.irregular.clear()
        self.foreign.clear()
        first_row = 0
        parquet = self._file.parquet
        columns = [name for name in WIRE_SCHEMA.names if name in parquet.schema_arrow.names]
        rows = min(rows, self._file.batch_rows or rows)
        wire_batches = parquet.iter_batches(rows, columns=columns, use_threads=False)
        most, expanded = self._file.batch_bytes, 0
        schema, foreign = None, False
        while True:
            try:
                wire = next(wire_batches, None)
            except UNREADABLE as error:
                raise unreadable(f"rows after row {first_row}", error) from error
            if wire is None:
                return
            expanded += wire.nbytes
            if most is not None and expanded > most:
                raise OversizedWindowFile(
                    f"window file: front-coded texts expand to more than {most} bytes"
                )
            if wire.schema != schema:  # pages may name other columns than the footer's schema
                foreign = is_foreign(wire.schema)
                schema = wire.schema
            refuse_invalid_text(wire, first_row)
            refuse_null_parts(wire, first_row)
            if foreign:
                wire, told = to_wire(wire, first_row)
                self.foreign.extend(told)
            read, irregular = wire_to_read(wire, first_row=first_row)
            refuse_long_rows(read, first_row)
            self.irregular.extend(irregular)
            first_row += wire.num_rows
            yield read


def write_window_file(
    sink: str | PathLike[str] | BinaryIO,
    batches: Iterable[pa.RecordBatch],
    *,
    wallet: str,
    window_start: int,
    timestamp: float,
) -> int:
    """Write flat record batches as one window file (§8.2); the number of rows written.

    wallet: the miner's hotkey. timestamp: unix seconds. Nothing is written before every batch
    has been drawn. Raises MistypedWindowFile where a batch is not of FLAT_SCHEMA and
    IncompleteRollouts where there is no row or a value is null.
    """
    wire = [
        flat_to_wire(part) for batch in batches for part in _checked_parts(batch) if part.num_rows
    ]
    rows: int = sum(batch.num_rows for batch in wire)
    if not rows:
        raise IncompleteRollouts(
            f"window {window_start} has no rollouts; an empty file earns nothing and is not written"
        )
    header = {
        "wallet": wallet,
        "window_start": str(window_start),
        "window_length": str(WINDOW_BLOCKS),
        "inference_count": str(rows),
        "timestamp": repr(float(timestamp)),
    }
    pq.write_table(
        pa.Table.from_batches(wire, WIRE_SCHEMA).replace_schema_metadata(header),
        sink,
        version="2.6",
        compression="zstd",
        compression_level=1,
        use_dictionary=True,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
        write_statistics=True,
        row_group_size=MAX_ROWS,
    )
    return rows


def read_window_file(source: Source) -> WindowFile:
    """A whole window file. Raises what `open_window_file` and `WindowReader.batches` raise."""
    reader = open_window_file(source)
    rows = pa.Table.from_batches(reader.batches(), READ_SCHEMA)
    return WindowFile(reader.header, rows, tuple(reader.irregular), tuple(reader.foreign))


def open_window_file(source: Source) -> WindowReader:
    """A reader of an untrusted window file, after every check that needs no values.

    Raises CorruptWindowFile, OversizedWindowFile or MistypedWindowFile (§8.2, §11.1 F1-F2).
    """
    guarded = open_parquet(_open(source))
    return WindowReader(_header(guarded.footer), guarded)


def _open(source: Source) -> pa.NativeFile:
    if isinstance(source, bytes):
        return pa.BufferReader(source)
    if isinstance(source, str | PathLike):
        return pa.OSFile(str(source))
    return pa.PythonFile(source, mode="r")


def _checked_parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts of BATCH_ROWS, once every value is known to be there."""
    if batch.schema.names != FLAT_SCHEMA.names:
        wrong = sorted(set(batch.schema.names) ^ set(FLAT_SCHEMA.names))
        raise MistypedWindowFile(
            f"rollouts must have the columns of FLAT_SCHEMA in its order; differing: {wrong}"
        )
    for wanted, column in zip(FLAT_SCHEMA, batch.columns, strict=True):
        if column.type != wanted.type:
            raise MistypedWindowFile(
                f"rollouts column {wanted.name} is {column.type}, must be {wanted.type}"
            )
        missing = column.null_count
        if pa.types.is_list(wanted.type):
            missing += column.flatten().null_count
        if missing:
            raise IncompleteRollouts(f"rollouts column {wanted.name} holds {missing} null values")
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def _header(footer: Footer) -> WindowHeader:
    def read(key: str, convert: Callable[[str], _T]) -> _T | None:
        raw = footer.metadata.get(key.encode())
        if raw is None:
            return None
        try:
            return convert(raw.decode())
        except (ValueError, OverflowError) as error:
            raise MistypedWindowFile(
                f"window file metadata {key} is {raw!r:.80}, not {convert.__name__}"
            ) from error

    return WindowHeader(
        wallet=read("wallet", str),
        window_start=read("window_start", int),
        window_length=read("window_length", int),
        inference_count=read("inference_count", int),
        timestamp=read("timestamp", float),
        rows=footer.rows,
    )
