"""The lake as SQL: a DuckDB file of views, replaced atomically, and one safe way to query it.

A view reads, besides its data, an empty file of its own generation. That file goes before any
other the view still reads: a connection kept open for too long gets an error from then on, never
a table with rows missing.
"""

import errno
import os
import re
import secrets
from collections.abc import Callable, Container, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import duckdb
import pyarrow as pa

from windrow.resources.files import naming_disk_errors
from windrow.resources.locks import file_lock
from windrow.resources.warehouse.dataset import Dataset
from windrow.resources.warehouse.files import LakeError, write_file
from windrow.resources.warehouse.manifest import CompactedFile, Manifest, Ranges
from windrow.resources.warehouse.schema import DATASETS
from windrow.resources.warehouse.summaries import NO_DOWNLOADS, SUMMARIES, TABLES, Summary

CATALOGUE = "catalogue.duckdb"
PUBLISH_LOCK = ".publish.lock"
NO_WINDOW = "window_start=-1/empty.parquet"
ATTEMPTS = 5
VANISHED = (os.strerror(errno.ENOENT), "No files found that match the pattern")
"""What DuckDB says of a file that is gone when it is opened, and when a view is bound to it."""


_CLASSES = {"\\": "[[-]]"}
_WINDOW_TYPE = ", hive_types = {'window_start': BIGINT}"


class QueryRefused(LakeError):
    """A query that is not one SELECT, or that reaches outside the lake."""


class QueryFailed(LakeError):
    """DuckDB could not run a query."""


class LakeUnreadable(QueryFailed):
    """A file that a query needs cannot be read; the text names it."""


def generation_file(dataset: str, generation: int) -> str:
    """Path, relative to the lake, of the empty file only a generation's view reads."""
    return f"{dataset}/generations/{generation}.parquet"


def edition(root: Path) -> str:
    """Tells catalogues apart that show the same manifest: a moved lake, other columns."""
    return sha256("\n".join(view_statements(root, Manifest())).encode()).hexdigest()


def publish(root: Path) -> None:
    """Make the catalogue of the newest manifest. Raises DiskFull, PathRefused."""
    path = root / CATALOGUE
    with naming_disk_errors(path), file_lock(root / PUBLISH_LOCK):
        # Read under the lock: whoever publishes last publishes the newest.
        manifest = Manifest.load(root)
        for dataset in DATASETS.values():
            # DuckDB refuses a pattern that matches no file, as it would in an empty dataset.
            generation = root / generation_file(dataset.name, manifest.generation)
            for empty in (root / dataset.name / NO_WINDOW, generation):
                write_file(empty, dataset, [], run_id="", replace=True)
        temporary = root / f".catalogue.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        try:
            with duckdb.connect(temporary) as connection:
                about = (
                    f"CREATE VIEW catalogue AS SELECT {quoted(edition(root))} AS edition, "
                    f"{manifest.generation}::BIGINT AS generation"
                )
                statements = ["BEGIN", about, *view_statements(root, manifest), "COMMIT"]
                connection.execute(";\n".join(statements))
                # Closing would do this too, but says nothing when it fails.
                connection.execute("CHECKPOINT")
            temporary.replace(path)
        except duckdb.Error as error:
            # DuckDB keeps the system's error in its text only.
            if os.strerror(errno.ENOSPC) in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise LakeError(f"The catalogue {path} cannot be written: {error}.") from error
        finally:
            temporary.unlink(missing_ok=True)
            temporary.with_name(temporary.name + ".wal").unlink(missing_ok=True)


def published_edition(root: Path) -> tuple[str, int] | None:
    """Edition and generation of the catalogue that is there, if one is."""
    if not (root / CATALOGUE).exists():
        return None
    try:
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {quoted(root / CATALOGUE)} AS lake (READ_ONLY)")
            row = connection.execute("SELECT edition, generation FROM lake.catalogue").fetchone()
    except duckdb.Error:
        return None  # damaged, and made again as a missing one is
    return None if row is None else (row[0], row[1])


def query(root: Path, sql: str, parameters: Sequence[object]) -> pa.Table:
    """Run one SELECT over the views, with nothing but the lake in reach.

    Raises QueryRefused, QueryFailed.
    """
    return select(lambda: _connect(root), sql, parameters)


def select(
    connect: Callable[[], duckdb.DuckDBPyConnection], sql: str, parameters: Sequence[object]
) -> pa.Table:
    """Run one SELECT on a locked connection to a lake. Raises QueryRefused, QueryFailed."""
    attempts = ATTEMPTS
    while True:
        attempts -= 1
        with connect() as connection:
            require_select(connection, sql)
            try:
                return connection.execute(sql, parameters).to_arrow_table()
            except duckdb.PermissionException as error:
                raise QueryRefused(f"A query may read the lake's views only: {error}") from error
            except duckdb.IOException as error:
                # A file that was merged long ago may go while it is looked for: look again.
                if not attempts or not any(text in str(error) for text in VANISHED):
                    raise LakeUnreadable(f"The lake cannot be read: {error}") from error
            except duckdb.Error as error:
                # A damaged file is named; a folder that is no window's is what its name holds.
                file = any(text in str(error) for text in (".parquet", "hive partition column"))
                raise (LakeUnreadable if file else QueryFailed)(str(error)) from error


def _connect(root: Path) -> duckdb.DuckDBPyConnection:
    # A database of its own in memory: DuckDB shares one opened by path between threads, and a
    # shared one would keep showing the catalogue that was there first.
    config = NO_DOWNLOADS | {"temp_directory": str(root / ".spill")}
    connection = duckdb.connect(config=config)
    try:
        connection.execute(f"ATTACH {quoted(root / CATALOGUE)} AS lake (READ_ONLY)")
        connection.execute("USE lake")
    except duckdb.Error as error:
        connection.close()
        raise LakeUnreadable(f"The catalogue {root / CATALOGUE} cannot be read: {error}") from error
    lock_to(connection, str(root))
    return connection


def lock_to(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    """Leave nothing but the lake in a connection's reach, for good."""
    # DuckDB compares a pattern as it is written, and the files that it finds.
    allowed = ", ".join(quoted(path) for path in dict.fromkeys((root, _literally(root))))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raises QueryRefused for anything but one SELECT, QueryFailed for what is no SQL."""
    # The lake's own folder is in reach, so COPY … TO could write there.
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise QueryRefused("Give exactly one SELECT; the lake is not changed by queries.")


def view_statements(
    root: Path | str, manifest: Manifest, names: Container[str] = TABLES
) -> list[str]:
    """The SQL of the views of datasets and summaries, all of them or those named."""
    statements = []
    for dataset in DATASETS.values():
        if dataset.name in names:
            files = manifest.files(dataset.name)
            statements += _described(dataset, _rows(root, dataset, manifest, files))
    for summary in SUMMARIES.values():
        if summary.name in names:
            statements += _described(summary.rows, _summarised(root, summary, manifest))
    return statements


def _described(rows: Dataset, select: str) -> list[str]:
    return [
        f"CREATE VIEW {rows.name} AS {select}",
        f"COMMENT ON VIEW {rows.name} IS {quoted(rows.description)}",
        *(
            f'COMMENT ON COLUMN {rows.name}."{name}" IS {quoted(meaning)}'
            for name, meaning in rows.columns.items()
        ),
    ]


def _rows(
    root: Path | str, dataset: Dataset, manifest: Manifest, merged: Iterable[CompactedFile]
) -> str:
    """SELECT every row of the small files, and of these merged ones."""
    columns = ", ".join(f'"{name}"' for name in dataset.columns)
    compacted = manifest.files(dataset.name)
    inside = " OR ".join(_within(file.windows) for file in compacted) or "false"
    generation = quoted(f"{root}/{generation_file(dataset.name, manifest.generation)}")
    each_window = quoted(f"{_literally(root)}/{dataset.name}/window_start=*/*.parquet")
    # DuckDB takes a column from any folder above that is called name=value: below one, the files'
    # own columns are read, and files of other windows are opened to be left out.
    parts_of_path = "false" if "=" in str(root) else "true"
    parts = [
        f"SELECT {columns} FROM read_parquet({generation}, hive_partitioning = false)",  # noqa: S608 - quoted
        f"SELECT {columns} FROM read_parquet({each_window}, union_by_name = true, "  # noqa: S608 - quoted
        f"hive_partitioning = {parts_of_path}{_WINDOW_TYPE if parts_of_path == 'true' else ''}) "
        f"WHERE NOT ({inside})",
    ]
    parts += [_merged(root, file.path, file.windows) for file in merged]
    return " UNION ALL BY NAME ".join(parts)


def _summarised(root: Path | str, summary: Summary, manifest: Manifest) -> str:
    """SELECT the summaries of the merged files, and that of the rows that have none yet."""
    plain, parts = [], []
    for file in manifest.files(summary.of):
        path = summary.beside(file.path)
        if path in file.summaries:
            parts.append(_merged(root, path, file.windows))
        else:
            plain.append(file)
    rows = _rows(root, DATASETS[summary.of], manifest, plain)
    return " UNION ALL BY NAME ".join([summary.over(f"({rows})"), *parts])


def _merged(root: Path | str, path: str, windows: Ranges) -> str:
    file = quoted(f"{root}/{path}")
    return f"SELECT * FROM read_parquet({file}, hive_partitioning = false) WHERE {_within(windows)}"  # noqa: S608 - quoted


def _within(windows: Ranges) -> str:
    spans = [f"window_start BETWEEN {first} AND {last}" for first, last in windows]
    return f"({' OR '.join(spans) or 'false'})"


def _literally(root: Path | str) -> str:
    """A path as the start of a pattern that matches it.

    DuckDB has no escape but a class of characters, and takes a backslash for a separator: the class
    from [ to ] holds one. A lake beside this one whose path has [ or ] in its place is matched too,
    and then refused, as every file outside the lake is.
    """
    return re.sub(r"[*?\[\]{}\\]", lambda found: _CLASSES.get(found[0], f"[{found[0]}]"), str(root))


def quoted(text: str | Path) -> str:
    """A text as SQL writes it."""
    return "'" + str(text).replace("'", "''") + "'"
