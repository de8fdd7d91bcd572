"""The lake: every row Windrow makes, in Parquet files written once and queried through DuckDB.

`<lake>/<dataset>/window_start=<n>/<name>.parquet`, where name is the hotkey as a rule.
`<lake>/catalogue.duckdb` holds a view a dataset; open it read-only with any DuckDB of this version.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from windrow.resources.files import naming_disk_errors
from windrow.resources.locks import file_lock
from windrow.resources.warehouse import catalogue as lake_catalogue
from windrow.resources.warehouse import compaction as lake_compaction
from windrow.resources.warehouse import healing
from windrow.resources.warehouse.catalogue import LakeUnreadable
from windrow.resources.warehouse.compaction import Compaction, parts_of, small_files
from windrow.resources.warehouse.files import (
    LakeError,
    LakeFileDamaged,
    LakeFileExists,
    LakeFileMissing,
    LakeSchemaError,
    check_rows,
    dataset_named,
    read_rows,
    window_file,
    window_folder,
    write_file,
)
from windrow.resources.warehouse.healing import Damage
from windrow.resources.warehouse.manifest import Manifest

T = TypeVar("T")

_Source = tuple[Path, int, int]
"""A file, the first of its rows that count, and how many at most."""

_ALL = 2**62
MOST_DAMAGED = 1000
"""Damaged files that one query or compaction takes out of its way."""


class Lake:
    """The lake in a folder; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Raises LakeError for a path that DuckDB cannot open, PathRefused, DiskFull."""
        self.root = root.absolute()
        if "?" in str(self.root):
            raise LakeError(
                f"The lake's path {self.root} holds a question mark, and DuckDB opens no database "
                "below such a folder. Set WINDROW_HOME to a folder with another name."
            )
        try:
            str(self.root).encode()
        except UnicodeEncodeError:
            raise LakeError(
                f"The lake's path {str(self.root)!a} is not UTF-8 text, which DuckDB needs. Set "
                "WINDROW_HOME to a folder with another name."
            ) from None
        with naming_disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self._catalogue_checked = False

    @property
    def catalogue(self) -> Path:
        """The DuckDB file of views, made when missing."""
        if not self._catalogue_checked:
            if healing.has_manifest(self.root):
                found = lake_catalogue.published_edition(self.root)
                if found is None or found[0] != lake_catalogue.edition(self.root):
                    lake_catalogue.publish(self.root)
            else:
                self.heal()
            self._catalogue_checked = True
        return self.root / lake_catalogue.CATALOGUE

    def path(self, dataset: str, window: int, name: str) -> Path:
        """Where `write` puts a window's rows of one name; gone once they are compacted."""
        return window_file(self.root, dataset, window, name)

    def write(
        self,
        dataset: str,
        window: int,
        name: str,
        table: pa.Table,
        *,
        run_id: str = "",
        replace: bool = False,
    ) -> Path:
        """Store a window's rows of one name, whole.

        run_id: of the run that made them, kept in the file.
        replace: rows stored before, by a run that is repeated, give way in one step.
        Raises LakeFileExists, LakeSchemaError, UnknownDataset, DiskFull, PathRefused.
        """
        kind = dataset_named(dataset)
        path = self.path(dataset, window, name)
        table = check_rows(kind, window, table)
        _ = self.catalogue
        try:
            while True:
                with file_lock(self.root / lake_compaction.STRUCTURE_LOCK, shared=True):
                    if Manifest.load(self.root).file_of(dataset, window) is None:
                        batches = table.to_batches()
                        write_file(path, kind, batches, run_id=run_id, replace=replace)
                        return path
                if lake_compaction.write_into_compacted(
                    self.root, kind, window, name, table, run_id=run_id, replace=replace
                ):
                    return path
        except FileExistsError as error:
            raise LakeFileExists(
                f"The lake holds {dataset} of window {window}, {name}, already. Rows are written "
                "once; a run that repeats a window replaces them on purpose."
            ) from error

    def names(self, dataset: str, window: int) -> list[str]:
        """The names a window has rows of, sorted."""
        return self._of_one_generation(dataset, window, list)

    def exists(self, dataset: str, window: int, name: str | None = None) -> bool:
        """Whether a window has rows stored: of a name, or of any."""
        names = self.names(dataset, window)
        return bool(names) if name is None else name in names

    def read(self, dataset: str, window: int, name: str | None = None) -> pa.Table:
        """A window's rows of a name, or of all names in their order.

        Raises LakeFileMissing, LakeFileDamaged, LakeSchemaError, UnknownDataset.
        """
        kind = dataset_named(dataset)

        def read(sources: dict[str, _Source]) -> pa.Table | None:
            wanted = [source for found, source in sources.items() if name in (None, found)]
            batches = [
                batch
                for path, first, rows in wanted
                for batch in read_rows(path, kind, first, rows)
            ]
            return pa.Table.from_batches(batches, kind.schema) if wanted else None

        table = self._of_one_generation(dataset, window, read)
        if table is None:
            raise LakeFileMissing(
                f"The lake holds no {dataset} of window {window}"
                f"{'' if name is None else ', ' + name}. Materialise that window first."
            )
        return table

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Run one SELECT over the views; nothing but the lake is in its reach.

        What is damaged is healed, and the query run again, as long as that helps.
        Raises QueryRefused, QueryFailed.
        """
        _ = self.catalogue
        for _attempt in range(MOST_DAMAGED):
            try:
                return lake_catalogue.query(self.root, sql, parameters)
            except LakeUnreadable as error:
                if not self.heal(str(error)):
                    raise
        return lake_catalogue.query(self.root, sql, parameters)

    def heal(self, said: str = "") -> list[Damage]:
        """As `healing.heal`, with a row of `faults` for each window that lost rows."""
        found = healing.heal(self.root, said)
        self.record_losses(found)
        return found

    def record_losses(self, found: Sequence[Damage]) -> None:
        """Store a row of `faults` for each window that lost rows."""
        kind = dataset_named("faults")
        for damage in found:
            way = damage.remedy or "No command can make these rows again."
            for window in damage.windows:
                row = dict.fromkeys(kind.columns) | {
                    "window_start": window,
                    "hotkey": Path(damage.path).stem.partition(".")[0],
                    "stage": damage.dataset,
                    "reason": "LakeFileDamaged",
                    "detail": f"{damage.path}: {damage.reason} The file is now in "
                    f"{healing.QUARANTINE}/. To do: {way}",
                    "recorded_at": time.time(),
                }
                name = f"lake.{damage.dataset}.{secrets.token_hex(4)}"
                self.write("faults", window, name, kind.table([row]))

    def compact(
        self, *, before: int, grace_seconds: float = lake_compaction.GRACE_SECONDS
    ) -> list[Compaction]:
        """Merge the small files of every full day of windows that ends before a window.

        A damaged file costs its own window: it goes to quarantine, and the others are merged.
        """
        if not healing.has_manifest(self.root):
            self.heal()
        for _attempt in range(MOST_DAMAGED):
            try:
                return lake_compaction.compact(
                    self.root, before=before, grace_seconds=grace_seconds
                )
            except (LakeFileDamaged, LakeSchemaError) as error:
                if not self.heal(str(error)):
                    raise  # such as a file of a newer release, which stays where it is
        return lake_compaction.compact(self.root, before=before, grace_seconds=grace_seconds)

    def _of_one_generation(
        self, dataset: str, window: int, use: Callable[[dict[str, _Source]], T]
    ) -> T:
        """What `use` makes of a window's sources, by name, while compaction moved none of them."""
        window_folder(self.root, dataset, window)
        while True:
            manifest = Manifest.load(self.root)
            try:
                made = use(self._sources(manifest, dataset, window))
            except FileNotFoundError:
                if Manifest.load(self.root).generation == manifest.generation:
                    raise
            else:
                if Manifest.load(self.root).generation == manifest.generation:
                    return made

    def _sources(self, manifest: Manifest, dataset: str, window: int) -> dict[str, _Source]:
        merged = manifest.file_of(dataset, window)
        if merged is None:
            files = small_files(self.root, dataset, window)
            return {path.stem: (path, 0, _ALL) for path in files}
        return {
            part.name: (self.root / merged.path, part.first_row, part.rows)
            for part in parts_of(self.root, dataset_named(dataset), merged)
            if part.window == window
        }
