"""Repair of a damaged lake: rebuild what is derived, and lose only the rows of a damaged file.

Derived files are the catalogue, the empty files of a generation, summaries, and the manifest,
because every merged file lists the rows it holds. Every other file is a source. A source whose
bytes are damaged, or that belongs to another dataset, moves to `<lake>/quarantine/`. A file that
this machine cannot read now, or that a newer release wrote, stays where it is.
"""

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import parse_window
from windrow.resources.locks import file_lock
from windrow.resources.warehouse.catalogue import (
    CATALOGUE,
    NO_WINDOW,
    edition,
    generation_file,
    publish,
    published_edition,
)
from windrow.resources.warehouse.compaction import (
    COMPACTION_LOCK,
    STALE_SECONDS,
    STRUCTURE_LOCK,
    listed_parts,
)
from windrow.resources.warehouse.dataset import Dataset
from windrow.resources.warehouse.files import (
    LakeFileDamaged,
    LakeSchemaError,
    LakeVersionUnknown,
    read_rows,
)
from windrow.resources.warehouse.manifest import (
    MANIFEST,
    CompactedFile,
    Garbage,
    Manifest,
    to_ranges,
)
from windrow.resources.warehouse.schema import DATASETS
from windrow.resources.warehouse.summaries import summaries_of, write_summaries

QUARANTINE: Final = "quarantine"
_FOLDER: Final = "window_start="
_MERGED: Final = re.compile(r"([0-9]+)-([0-9]+)\.([0-9]+)\.parquet")
_ALL: Final = 2**62


class Action(StrEnum):
    """What a repair does with a file."""

    REBUILD = "rebuild"
    REMOVE = "remove"
    QUARANTINE = "quarantine"
    KEEP = "keep"


@dataclass(frozen=True)
class Damage:
    """One fault in a lake.

    path: relative to the lake. reason: a sentence. dataset, windows: whose rows are lost with the
    file; None and empty where none are.
    """

    path: str
    reason: str
    action: Action
    dataset: str | None = None
    windows: tuple[int, ...] = ()

    @property
    def remedy(self) -> str:
        """The command that makes the lost rows again; empty where there is none."""
        if not self.windows or self.dataset is None:
            return ""
        kind = DATASETS[self.dataset]
        if "node" in kind.columns:
            return "windrow node verify"
        if kind.made_by is None:
            return ""
        more = len(self.windows) - 1
        return (
            "windrow dagster asset materialize -m windrow.pipelines.definitions "
            f"--select {kind.made_by} --partition {self.windows[0]}"
            + (f"  # and so for {more} more windows" if more else "")
        )


def heal(root: Path, said: str = "") -> list[Damage]:
    """Rebuild what is derived, and quarantine the damaged files that a reader's error names.

    said: text of that error. No other source file is opened, so this is cheap.
    Raises LakeFileUnreadable, DiskFull, PathRefused.
    """
    with file_lock(root / COMPACTION_LOCK):
        found = _manifest(root)
        for folder in _odd_folders(root):
            _quarantine(root, folder)
            found.append(folder)
        for path in _named_in(root, said):
            found += _quarantine_if_damaged(root, path)
        return found + _rebuild_summaries(root) + _catalogue(root)


def check(root: Path) -> list[Damage]:
    """Read every file of the lake and find its faults; nothing is changed.

    Raises LakeFileUnreadable.
    """
    found = glance(root)
    for path in sorted(root.glob("*/*/*")):
        if path.relative_to(root).parts[0] in DATASETS and path.is_file():
            damage = _damage_of(root, path)
            found += [damage] if damage is not None else []
    return found + _damaged_summaries(root) + _temporary(root)


def glance(root: Path) -> list[Damage]:
    """What `check` finds without opening the files of windows."""
    return [*_manifest(root, rebuild=False), *_odd_folders(root), *_catalogue(root, rebuild=False)]


def repair(root: Path) -> list[Damage]:
    """Check the lake and repair it; return what was done. Faults with Action.KEEP are left.

    Raises LakeFileUnreadable, DiskFull, PathRefused.
    """
    done: list[Damage] = []
    with file_lock(root / COMPACTION_LOCK):
        done += _manifest(root)
        for damage in check(root):
            path = root / damage.path
            if damage.action is Action.QUARANTINE and not path.is_dir():
                done += _quarantine_if_damaged(root, path)
                continue
            if damage.action is Action.QUARANTINE:
                _quarantine(root, damage)
            elif damage.action is Action.REMOVE:
                path.unlink(missing_ok=True)
            done.append(damage)
        _rebuild_summaries(root)
        _catalogue(root)
    return done


def has_manifest(root: Path) -> bool:
    """Whether the manifest is sound, or missing because nothing was merged yet."""
    return not _manifest(root, rebuild=False)


def _quarantine_if_damaged(root: Path, path: Path) -> list[Damage]:
    """Look at a file once more while no writer can replace it, and quarantine it if need be."""
    with file_lock(root / STRUCTURE_LOCK):
        damage = _damage_of(root, path)
        if damage is None or damage.action is not Action.QUARANTINE:
            return []
        _quarantine(root, damage)
    return [damage]


def _quarantine(root: Path, damage: Damage) -> None:
    """Move a file or folder out of the lake's views; a merged file leaves the manifest too."""
    source = root / damage.path
    target = root / QUARANTINE / damage.path
    for number in itertools.count(1):
        if not target.exists():
            break
        target = root / QUARANTINE / f"{damage.path}.{number}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        source.rename(target)
    with suppress(OSError):  # other files of the folder are still there
        source.parent.rmdir()
    manifest = Manifest.load(root)
    kept = {
        name: tuple(file for file in files if file.path != damage.path)
        for name, files in manifest.compacted.items()
    }
    if kept != dict(manifest.compacted):
        replace(manifest, generation=manifest.generation + 1, compacted=kept).save(root)


def _damage_of(root: Path, path: Path) -> Damage | None:
    """The fault of one file in a dataset's folder, all of which is read; None for a sound one."""
    relative = str(path.relative_to(root))
    name, folder, file = path.relative_to(root).parts[:3]
    dataset = DATASETS[name]
    if folder == "generations" or relative == f"{name}/{NO_WINDOW}" or file.startswith("."):
        return None
    if path.suffix != ".parquet":
        return Damage(relative, "This is not a lake file.", Action.QUARANTINE)
    if folder == "compacted":
        return _damage_of_merged(root, dataset, path, relative)
    window = parse_window(folder.removeprefix(_FOLDER))
    return _damage(path, relative, dataset, () if window is None else (window,))


def _damage_of_merged(root: Path, dataset: Dataset, path: Path, relative: str) -> Damage | None:
    if not _MERGED.fullmatch(path.name):
        return None  # a summary: see _damaged_summaries
    manifest = Manifest.load(root)
    listed = next((f for f in manifest.files(dataset.name) if f.path == relative), None)
    if listed is None:
        unused = relative not in {entry.path for entry in manifest.garbage}
        reason = "The manifest does not list this file."
        return Damage(relative, reason, Action.REMOVE) if unused else None
    windows = tuple(window for first, last in listed.windows for window in _windows(first, last))
    return _damage(path, relative, dataset, windows, merged=True)


def _damage(
    path: Path, relative: str, dataset: Dataset, windows: tuple[int, ...], *, merged: bool = False
) -> Damage | None:
    try:
        _read(path, dataset, merged=merged)
    except FileNotFoundError:
        return None  # replaced or merged since it was listed
    except LakeVersionUnknown as error:
        return Damage(relative, str(error), Action.KEEP)
    except (LakeFileDamaged, LakeSchemaError) as error:
        return Damage(relative, str(error), Action.QUARANTINE, dataset.name, windows)
    return None


def _read(path: Path, dataset: Dataset, *, merged: bool = False) -> None:
    """Read a whole file. Raises as `read_rows`, and LakeFileDamaged for wrong lists of parts."""
    if merged:
        listed_parts(path, dataset)
    for _ in read_rows(path, dataset, 0, _ALL):
        pass


def _windows(first: int, last: int) -> range:
    return range(first, last + 1, WINDOW_BLOCKS)


def _named_in(root: Path, said: str) -> Iterator[Path]:
    """The dataset files that a reader's error names."""
    for text in re.findall(re.escape(str(root)) + r"/[^\"'\n]*?\.parquet", said):
        path = Path(text)
        if len(path.relative_to(root).parts) == 3 and path.parts[-3] in DATASETS:
            yield path


def _manifest(root: Path, *, rebuild: bool = True) -> list[Damage]:
    """A damaged or lost manifest, and the merged files that cannot say what they hold."""
    path = root / MANIFEST
    try:
        Manifest.load(root)
        reason = "" if path.exists() or not _merged_files(root) else "The file is missing."
    except LakeFileDamaged as error:
        reason = str(error)
    if not reason:
        return []
    found = [Damage(MANIFEST, reason, Action.REBUILD)]
    if rebuild:
        with suppress(FileNotFoundError):
            path.replace(path.with_name(f"{MANIFEST}.damaged"))
        manifest, unlisted = _rebuilt_manifest(root)
        manifest.save(root)
        for damage in unlisted:  # else the next compaction would remove them
            _quarantine(root, damage)
        found += unlisted
    return found


def _merged_files(root: Path) -> list[tuple[Path, re.Match[str]]]:
    """Merged files with first window, last window and generation, the newest first."""
    matched = ((path, _MERGED.fullmatch(path.name)) for path in root.glob("*/compacted/*.parquet"))
    found = [(path, match) for path, match in matched if match and path.parts[-3] in DATASETS]
    return sorted(found, key=lambda each: -int(each[1][3]))


def _rebuilt_manifest(root: Path) -> tuple[Manifest, list[Damage]]:
    """What the merged files say they hold, and those that cannot; the newest of a day counts.

    A window that has files of its own is read from these: it left its merged file, or was merged
    so recently that they are still there, with the same rows.
    """
    generations = [int(p.stem) for p in root.glob("*/generations/*.parquet") if p.stem.isdecimal()]
    compacted: dict[str, tuple[CompactedFile, ...]] = {}
    garbage: list[Garbage] = []
    unlisted: list[Damage] = []
    days: set[tuple[str, str]] = set()
    for path, match in _merged_files(root):
        generations.append(int(match[3]))
        name, relative = path.parts[-3], str(path.relative_to(root))
        if (name, match[1]) in days:
            garbage.append(Garbage(relative, time.time()))
            continue
        try:
            held = {part.window for part in listed_parts(path, DATASETS[name])}
        except (LakeFileDamaged, LakeSchemaError) as error:
            lost = tuple(
                w for w in _windows(int(match[1]), int(match[2])) if not _own(root, name, w)
            )
            unlisted.append(Damage(relative, str(error), Action.QUARANTINE, name, lost))
            continue
        days.add((name, match[1]))
        windows = [window for window in held if not _own(root, name, window)]
        if windows:
            beside = (summary.beside(relative) for summary in summaries_of(name))
            summaries = tuple(each for each in beside if (root / each).exists())
            file = CompactedFile(relative, to_ranges(windows), summaries)
            compacted[name] = tuple(
                sorted((*compacted.get(name, ()), file), key=lambda each: each.windows)
            )
    return Manifest(max(generations, default=0) + 1, compacted, tuple(garbage)), unlisted


def _own(root: Path, dataset: str, window: int) -> bool:
    """Whether a window has files of its own."""
    return any((root / dataset / f"{_FOLDER}{window}").glob("*.parquet"))


def _odd_folders(root: Path) -> list[Damage]:
    """Folders with the name of a window's folder that no window has; they stop every query."""
    reason = "This is not a window: its number must be a multiple of 30."
    return [
        Damage(str(folder.relative_to(root)), reason, Action.QUARANTINE)
        for name in DATASETS
        for folder in sorted((root / name).glob(f"{_FOLDER}*"))
        if folder.name != NO_WINDOW.partition("/")[0]
        and parse_window(folder.name.removeprefix(_FOLDER)) is None
    ]


def _rebuild_summaries(root: Path) -> list[Damage]:
    found = _damaged_summaries(root)
    for damage in found:
        dataset = damage.path.partition("/")[0]
        day, generation = Path(damage.path).name.split(".")[:2]
        write_summaries(root, dataset, f"{dataset}/compacted/{day}.{generation}.parquet")
    return found


def _damaged_summaries(root: Path) -> list[Damage]:
    try:
        manifest = Manifest.load(root)
    except LakeFileDamaged:
        return []  # `_manifest` reports it
    return [
        Damage(path, reason, Action.REBUILD)
        for name, files in manifest.compacted.items()
        for file in files
        for summary in summaries_of(name)
        if (path := summary.beside(file.path)) in file.summaries
        and (reason := _reason_to_rebuild(root / path, summary.rows))
    ]


def _temporary(root: Path) -> list[Damage]:
    before, found = time.time() - STALE_SECONDS, []
    for path in sorted([*root.glob(".*.tmp"), *root.glob("*/*/.*.tmp")]):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                reason = "A process that ended left this file."
                found.append(Damage(str(path.relative_to(root)), reason, Action.REMOVE))
    return found


def _catalogue(root: Path, *, rebuild: bool = True) -> list[Damage]:
    """A catalogue, or an empty file that it needs, that must be published again."""
    try:
        manifest = Manifest.load(root)
    except LakeFileDamaged:
        return []  # `_manifest` reports it
    if not any((root / name).exists() for name in (CATALOGUE, *DATASETS)):
        return []  # nothing was ever stored
    found = [
        Damage(path, reason, Action.REBUILD)
        for dataset in DATASETS.values()
        for path in (
            f"{dataset.name}/{NO_WINDOW}",
            generation_file(dataset.name, manifest.generation),
        )
        if (reason := _reason_to_rebuild(root / path, dataset))
    ]
    if published_edition(root) != (edition(root), manifest.generation):
        reason = "The file is missing, damaged, or of another lake or release."
        found.append(Damage(CATALOGUE, reason, Action.REBUILD))
    if found and rebuild:
        publish(root)
    return found


def _reason_to_rebuild(path: Path, dataset: Dataset) -> str:
    """Why a derived file cannot be used; empty for a sound one."""
    try:
        _read(path, dataset)
    except FileNotFoundError:
        return "The file is missing."
    except (LakeFileDamaged, LakeSchemaError) as error:
        return str(error)
    return ""
