"""One Parquet file of the lake: written once and whole, read back in today's schema."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from windrow import WindrowError
from windrow.networks.grail.windows import parse_window
from windrow.resources.files import published
from windrow.resources.warehouse.dataset import Dataset
from windrow.resources.warehouse.schema import DATASETS, SCHEMA_VERSION

# Small enough to merge a file piece by piece in little memory, large enough to compress and to scan
# fast: DuckDB works through 122,880 rows of few bytes ten times as fast as through 1024 at a time.
ROW_GROUP_BYTES = 32 * 1024 * 1024
ROW_GROUP_ROWS = 122_880

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


class LakeError(WindrowError):
    """The lake cannot do what was asked."""


class UnknownDataset(LakeError):
    """No dataset has this name."""


class LakeSchemaError(LakeError):
    """Rows or a file do not have their dataset's columns."""


class LakeFileMissing(LakeError):
    """The lake holds no such rows."""


class LakeFileExists(LakeError):
    """The rows are there already, and the lake writes once."""


class LakeVersionUnknown(LakeSchemaError):
    """A file is of a schema version that this release does not know."""


class LakeFileDamaged(LakeError):
    """The bytes of a file of the lake are not those of a Parquet file."""


class LakeFileUnreadable(LakeError):
    """This machine cannot read a file of the lake now, whatever the file holds."""


def dataset_named(name: str) -> Dataset:
    """The dataset; raises UnknownDataset."""
    if name not in DATASETS:
        raise UnknownDataset(f"There is no dataset {name!r}; there are {', '.join(DATASETS)}.")
    return DATASETS[name]


def window_folder(root: Path, dataset: str, window: int) -> Path:
    """`<lake>/<dataset>/window_start=<n>`, checked."""
    if parse_window(str(window)) is None:
        raise LakeError(f"{window} is not a window: its first block is a multiple of 30.")
    return root / dataset_named(dataset).name / f"window_start={window}"


def window_file(root: Path, dataset: str, window: int, name: str) -> Path:
    """Where a window's rows of one name (the hotkey, as a rule) are, checked."""
    if not _NAME.fullmatch(name):
        raise LakeError(f"{name!r} cannot name a file: use letters, digits, '_', '-' and '.'.")
    return window_folder(root, dataset, window) / f"{name}.parquet"


def check_rows(dataset: Dataset, window: int, table: pa.Table) -> pa.Table:
    """The rows with columns in the dataset's order. Raises LakeSchemaError."""
    expected, found = dataset.schema, table.column_names
    wrong = [f"{name} is missing" for name in expected.names if name not in found]
    wrong += [f"{name} is no column" for name in found if name not in expected.names]
    if not wrong and len(found) != len(expected):
        wrong = ["a column is there twice"]
    if not wrong:
        wrong = [
            f"{field.name} is {table.schema.field(field.name).type}, not {field.type}"
            for field in expected
            if table.schema.field(field.name).type != field.type
        ]
    if wrong:
        raise LakeSchemaError(f"Rows for {dataset.name}: {'; '.join(wrong)}.")
    if set(table["window_start"].unique().to_pylist()) - {window}:
        raise LakeSchemaError(f"Rows for {dataset.name}, window {window}, name another window.")
    return table.select(expected.names)


def write_file(
    path: Path,
    dataset: Dataset,
    batches: Iterable[pa.RecordBatch],
    *,
    run_id: str,
    replace: bool,
    extra: dict[str, str] | None = None,
) -> None:
    """Write a file whole. Raises FileExistsError when it exists and not replace, DiskFull, …"""
    metadata = {
        "windrow.dataset": dataset.name,
        "windrow.schema_version": str(SCHEMA_VERSION),
        "windrow.run_id": run_id,
    } | (extra or {})
    schema = dataset.schema.with_metadata(metadata)
    with (
        published(path, replace=replace) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", compression_level=3) as writer,
    ):
        pending: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in itertools.chain.from_iterable(map(_pieces, batches)):
            if pending and (
                rows + batch.num_rows > ROW_GROUP_ROWS or size + batch.nbytes > ROW_GROUP_BYTES
            ):
                writer.write_table(pa.Table.from_batches(pending), row_group_size=rows)
                pending, rows, size = [], 0, 0
            pending.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows:
            writer.write_table(pa.Table.from_batches(pending), row_group_size=rows)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in slices that fill at most half a row group each, when its rows are of one size."""
    fitting = ROW_GROUP_BYTES * batch.num_rows // max(batch.nbytes, 1)
    step = max(min(fitting, ROW_GROUP_ROWS) // 2, 1)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def open_file(path: Path, dataset: Dataset) -> pq.ParquetFile:
    """A file of the dataset. Raises FileNotFoundError, LakeFileDamaged, LakeSchemaError."""
    with _naming_damage(path):
        file = pq.ParquetFile(path)
    metadata = file.schema_arrow.metadata or {}
    found = [
        metadata.get(key, b"none").decode(errors="replace")
        for key in (b"windrow.dataset", b"windrow.schema_version")
    ]
    if found != [dataset.name, str(SCHEMA_VERSION)]:
        file.close()
        kind = LakeVersionUnknown if found[0] == dataset.name else LakeSchemaError
        raise kind(
            f"{path} holds {found[0]} in schema version {found[1]}; here it must be "
            f"{dataset.name} in version {SCHEMA_VERSION}."
        )
    return file


def read_rows(path: Path, dataset: Dataset, first: int, count: int) -> Iterator[pa.RecordBatch]:
    """Rows [first, first + count) of a file, a row group at a time, in today's schema.

    A column that an older file lacks reads as null. Raises as open_file.
    """
    with open_file(path, dataset) as file:
        start = 0
        for index in range(file.num_row_groups):
            rows = file.metadata.row_group(index).num_rows
            low, high = max(first - start, 0), min(first + count - start, rows)
            if low < high:
                with _naming_damage(path):
                    group = file.read_row_group(index).slice(low, high - low)
                yield from (_in_schema(dataset, batch) for batch in group.to_batches())
            start += rows


@contextlib.contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, MemoryError):
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise LakeFileUnreadable(
                f"{path} cannot be read: {error.strerror}. Check the disk, and that this user may "
                "read the file."
            ) from error
        raise LakeFileDamaged(
            f"{path} cannot be read: {error}. Materialise its window again."
        ) from error


def _in_schema(dataset: Dataset, batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            batch.column(field.name)
            if field.name in batch.schema.names
            else pa.nulls(batch.num_rows, field.type)
            for field in dataset.schema
        ],
        schema=dataset.schema,
    )
