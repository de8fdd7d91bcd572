"""Merging a day's small files into one, while others read and write the lake.

The manifest is switched in one step, from the small files to the merged one; the catalogue
follows. What nobody new reads stays on disk for a while, for those who read it already. A crash
at any point leaves the lake whole, and the next compaction finishes the work.

Locks, always taken in this order: COMPACTION by whoever changes the manifest; STRUCTURE shared by
a writer of a window's file, exclusive for the switch.
"""

import contextlib
import itertools
import json
import time
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import pyarrow as pa

from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import parse_window
from windrow.resources.locks import file_lock
from windrow.resources.warehouse.catalogue import (
    edition,
    generation_file,
    publish,
    published_edition,
)
from windrow.resources.warehouse.dataset import Dataset
from windrow.resources.warehouse.files import (
    LakeFileDamaged,
    open_file,
    read_rows,
    window_file,
    window_folder,
    write_file,
)
from windrow.resources.warehouse.manifest import (
    CompactedFile,
    Garbage,
    Manifest,
    to_ranges,
    without,
)
from windrow.resources.warehouse.schema import DATASETS
from windrow.resources.warehouse.summaries import write_summaries

WINDOWS_PER_FILE = 240
"""About a day; merged files hold windows from one multiple of this many to the next."""

GRACE_SECONDS = 600.0
SETTLE_SECONDS = 0.5
STALE_SECONDS = 24 * 3600.0

COMPACTION_LOCK = ".compaction.lock"
STRUCTURE_LOCK = ".structure.lock"

_PARTS = "windrow.parts"
_DAY = WINDOWS_PER_FILE * WINDOW_BLOCKS


@dataclass(frozen=True)
class Part:
    """Where the rows of one former small file are in a merged file."""

    window: int
    name: str
    first_row: int
    rows: int


@dataclass(frozen=True)
class Compaction:
    """What was merged: files into one, from `first_window` on."""

    dataset: str
    first_window: int
    files: int
    rows: int
    bytes: int


def small_files(root: Path, dataset: str, window: int) -> list[Path]:
    """The files in a window's folder, sorted."""
    return sorted(window_folder(root, dataset, window).glob("*.parquet"))


def small_windows(root: Path, dataset: str) -> list[int]:
    """The windows that have a folder, sorted; window_start=-1 is not one."""
    names = (f.name.removeprefix("window_start=") for f in (root / dataset).glob("window_start=*"))
    return sorted(window for name in names if (window := parse_window(name)) is not None)


def parts_of(root: Path, dataset: Dataset, file: CompactedFile) -> list[Part]:
    """The parts of a merged file that count, in row order. Raises as `listed_parts`."""
    listed = listed_parts(root / file.path, dataset)
    return [part for part in listed if file.holds(part.window)]


def listed_parts(path: Path, dataset: Dataset) -> list[Part]:
    """All parts that a merged file says it has. Raises FileNotFoundError, LakeFileDamaged."""
    with open_file(path, dataset) as merged:
        metadata, rows = merged.schema_arrow.metadata, merged.metadata.num_rows
    try:
        listed = [
            Part(int(window), str(name), int(first), int(count))
            for window, name, first, count in json.loads(metadata[_PARTS.encode()])
        ]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise LakeFileDamaged(
            f"{path} does not say which windows its rows are of ({error!r:.100})."
        ) from error
    if sum(part.rows for part in listed) != rows:
        raise LakeFileDamaged(f"{path} holds {rows} rows, and lists others.")
    return listed


def compact(root: Path, *, before: int, grace_seconds: float = GRACE_SECONDS) -> list[Compaction]:
    """Merge every dataset's small files of each full day that ends before a window.

    Running it again changes nothing. Files merged longer than `grace_seconds` ago are removed.
    """
    done = []
    with file_lock(root / COMPACTION_LOCK):
        _catch_up(root)
        for dataset in DATASETS.values():
            days = {window // _DAY for window in small_windows(root, dataset.name)}
            for day in sorted(day for day in days if (day + 1) * _DAY <= before):
                merged = _compact_day(root, dataset, day * _DAY)
                if merged is not None:
                    done.append(merged)
        _catch_up(root)
        _sweep(root, grace_seconds)
    return done


def write_into_compacted(
    root: Path,
    dataset: Dataset,
    window: int,
    name: str,
    table: pa.Table,
    *,
    run_id: str,
    replace: bool,
) -> bool:
    """Write a file of a window that is in a merged file: the window leaves that file, whole.

    Returns False, having done nothing, when the window is in no merged file any more.
    Raises FileExistsError when it holds the name already and not replace.
    """
    with file_lock(root / COMPACTION_LOCK):
        manifest = Manifest.load(root)
        old = manifest.file_of(dataset.name, window)
        if old is None:
            return False
        parts = [part for part in parts_of(root, dataset, old) if part.window == window]
        if not replace and any(part.name == name for part in parts):
            raise FileExistsError(f"{dataset.name}, window {window}, {name}")
        for part in parts:
            path = window_file(root, dataset.name, window, part.name)
            batches = read_rows(root / old.path, dataset, part.first_row, part.rows)
            write_file(path, dataset, batches, run_id=run_id, replace=True)
        path = window_file(root, dataset.name, window, name)
        write_file(path, dataset, table.to_batches(), run_id=run_id, replace=True)

        rest = without(old.windows, window)
        files = [file for file in manifest.files(dataset.name) if file != old]
        files += [CompactedFile(old.path, rest, old.summaries)] if rest else []
        folder = window_folder(root, dataset.name, window).relative_to(root)
        _switch(root, manifest, dataset, files, [] if rest else list(old.paths), alive=folder)
        publish(root)
        return True


def _compact_day(root: Path, dataset: Dataset, first: int) -> Compaction | None:
    manifest = Manifest.load(root)
    last = first + _DAY - WINDOW_BLOCKS
    old = [file for file in manifest.files(dataset.name) if first <= file.windows[0][0] <= last]
    free = [
        window
        for window in range(first, last + 1, WINDOW_BLOCKS)
        if manifest.file_of(dataset.name, window) is None
    ]
    while True:
        seen = _identities(root, dataset, free)
        if not seen or len(seen) + len(old) < 2:
            return None
        path = f"{dataset.name}/compacted/{first}-{last}.{manifest.generation + 1}.parquet"
        parts = _merge(root, dataset, path, list(seen), old)
        summaries = write_summaries(root, dataset.name, path)
        with file_lock(root / STRUCTURE_LOCK):
            # A file written or replaced meanwhile is not in the merged one: merge again.
            if _identities(root, dataset, free) != seen:
                continue
            files = [file for file in manifest.files(dataset.name) if file not in old]
            windows = to_ranges(part.window for part in parts)
            files.append(CompactedFile(path, windows, summaries))
            dropped = [str(small.relative_to(root)) for small in seen]
            dropped += [path for file in old for path in file.paths]
            _switch(root, manifest, dataset, files, dropped)
        rows = sum(part.rows for part in parts)
        return Compaction(dataset.name, first, len(seen), rows, (root / path).stat().st_size)


def _identities(root: Path, dataset: Dataset, windows: list[int]) -> dict[Path, tuple[int, int]]:
    """The small files of windows, each with what changes when it is replaced."""
    files = [path for window in windows for path in small_files(root, dataset.name, window)]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def _merge(
    root: Path, dataset: Dataset, path: str, small: list[Path], old: list[CompactedFile]
) -> list[Part]:
    """Write the rows of small and merged files into one, by window and name."""
    sources: list[tuple[int, str, Path, int, int]] = []
    for file in old:
        for part in parts_of(root, dataset, file):
            source = (part.window, part.name, root / file.path, part.first_row, part.rows)
            sources.append(source)
    for small_path in small:
        window = int(small_path.parent.name.removeprefix("window_start="))
        with open_file(small_path, dataset) as opened:
            rows = opened.metadata.num_rows
        sources.append((window, small_path.stem, small_path, 0, rows))
    sources.sort(key=lambda source: source[:2])

    starts = itertools.accumulate((rows for *_, rows in sources), initial=0)
    parts = [
        Part(window, name, start, rows)
        for (window, name, _, _, rows), start in zip(sources, starts, strict=False)
    ]
    batches = itertools.chain.from_iterable(
        read_rows(source, dataset, first_row, rows) for _, _, source, first_row, rows in sources
    )
    listed = json.dumps([astuple(part) for part in parts], separators=(",", ":"))
    write_file(root / path, dataset, batches, run_id="", replace=True, extra={_PARTS: listed})
    return parts


def _switch(
    root: Path,
    manifest: Manifest,
    dataset: Dataset,
    files: list[CompactedFile],
    dropped: list[str],
    alive: Path | None = None,
) -> None:
    """Make `files` the merged files of a dataset. alive: a folder whose files count again."""
    now = time.time()
    # Views of this generation read what is dropped, so their generation's files go too.
    dropped = dropped + [generation_file(name, manifest.generation) for name in DATASETS]
    garbage = [entry for entry in manifest.garbage if Path(entry.path).parent != alive]
    garbage += [Garbage(path, now) for path in dropped]
    files.sort(key=lambda file: file.windows)
    Manifest(
        manifest.generation + 1,
        {**manifest.compacted, dataset.name: tuple(files)},
        tuple(garbage),
    ).save(root)


def _catch_up(root: Path) -> None:
    """Publish the catalogue of the manifest unless that is the one there."""
    if published_edition(root) != (edition(root), Manifest.load(root).generation):
        publish(root)


def _sweep(root: Path, grace_seconds: float) -> None:
    """Remove garbage old enough, and what crashed runs left behind."""
    manifest = Manifest.load(root)
    now = time.time()
    old = [entry for entry in manifest.garbage if entry.since <= now - grace_seconds]
    views = [entry for entry in old if Path(entry.path).parent.name == "generations"]
    for entry in views:
        (root / entry.path).unlink(missing_ok=True)
    rest = [entry for entry in old if entry not in views]
    if rest:
        # A query that found its generation's file a moment ago finishes finding the others.
        time.sleep(SETTLE_SECONDS)
    for entry in rest:
        path = root / entry.path
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
    if old:
        kept = tuple(entry for entry in manifest.garbage if entry not in old)
        replace(manifest, garbage=kept).save(root)

    known = {entry.path for entry in manifest.garbage}
    merged = [file for files in manifest.compacted.values() for file in files]
    known |= {path for file in merged for path in file.paths}
    for path in root.glob("*/compacted/*.parquet"):
        if str(path.relative_to(root)) not in known:
            path.unlink()
    for path in [*root.glob(".*.tmp"), *root.glob("*/*/.*.tmp")]:
        if path.stat().st_mtime < now - STALE_SECONDS:
            path.unlink()
