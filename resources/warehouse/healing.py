"""A lake that is damaged: what is derived is made again, and a damaged file costs its own window.

Derived are the catalogue, the empty files of a generation, summaries, and the manifest, for every
merged file says which rows it holds. All else is source: a file that cannot be read, or is another
dataset's, moves to `<lake>/quarantine/`, and a row of `faults` says which rows to make again.
"""

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
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
from windrow.resources.warehouse.compaction import COMPACTION_LOCK, STALE_SECONDS, listed_parts
from windrow.resources.warehouse.dataset import Dataset
from windrow.resources.warehouse.files import LakeError, LakeFileDamaged, open_file, read_rows
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


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong in a lake.

    path: relative to the lake. derived: made again by a repair; else the file goes to quarantine.
    dataset, windows: whose rows are lost with it; None and empty where none are.
    """

    path: str
    reason: str
    derived: bool = False
    dataset: str | None = None
    windows: tuple[int, ...] = ()

    @property
    def remedy(self) -> str:
        """How to make the lost rows again; empty where none are lost."""
        if not self.windows:
            return ""
        first, more = self.windows[0], len(self.windows) - 1
        others = f" and for {more} more windows" if more else ""
        return (
            "windrow dagster asset materialize -m windrow.pipelines.definitions "
            f"--select {self.dataset} --partition {first}{others}"
        )


def heal(root: Path, said: str = "") -> list[Damage]:
    """Make again what is derived, and take out of the way what a reader stumbled over.

    said: the reader's error, which names files. Cheap: no other source file is opened.
    Raises DiskFull, PathRefused.
    """
    with file_lock(root / COMPACTION_LOCK):
        found = [*_manifest(root), *_odd_folders(root)]
        for path in _named_in(root, said):
            problem = problem_of(root, path)
            if problem is not None and not problem.derived:
                found.append(problem)
        for problem in found:
            if not problem.derived:
                quarantine(root, problem)
        found += _summaries(root)
        return found + _catalogue(root)


def check(root: Path) -> list[Damage]:
    """Read every file of the lake and find what is wrong; nothing is changed."""
    found = glance(root)
    for path in sorted(root.glob("*/*/*")):
        if path.relative_to(root).parts[0] in DATASETS and path.is_file():
            problem = problem_of(root, path)
            found += [problem] if problem is not None else []
    return found + _damaged_summaries(root) + _temporary(root)


def glance(root: Path) -> list[Damage]:
    """What `check` finds without opening the files of windows."""
    return [*_manifest(root, rebuild=False), *_odd_folders(root), *_catalogue(root, rebuild=False)]


def repair(root: Path) -> list[Damage]:
    """Put right what `check` finds; returns that. Raises DiskFull, PathRefused."""
    found = check(root)
    with file_lock(root / COMPACTION_LOCK):
        _manifest(root)
        for problem in found:
            if not problem.derived:
                quarantine(root, problem)
            elif problem.path.endswith(".tmp"):
                (root / problem.path).unlink(missing_ok=True)
        _summaries(root)
        _catalogue(root)
    return found


def has_manifest(root: Path) -> bool:
    """Whether the manifest is sound, or missing because nothing was merged yet."""
    return not _manifest(root, rebuild=False)


def quarantine(root: Path, problem: Damage) -> None:
    """Move a file or folder out of the lake's sight; a merged one leaves the manifest too."""
    source = root / problem.path
    target = root / QUARANTINE / problem.path
    for number in itertools.count(1):
        if not target.exists():
            break
        target = root / QUARANTINE / f"{problem.path}.{number}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        source.rename(target)
    with suppress(OSError):
        source.parent.rmdir()
    manifest = Manifest.load(root)
    kept = {
        name: tuple(file for file in files if file.path != problem.path)
        for name, files in manifest.compacted.items()
    }
    if kept != dict(manifest.compacted):
        replace(manifest, generation=manifest.generation + 1, compacted=kept).save(root)


def problem_of(root: Path, path: Path) -> Damage | None:
    """What is wrong with one file of a dataset's folder, all of which is read."""
    relative = str(path.relative_to(root))
    name, folder, file = path.relative_to(root).parts[:3]
    dataset = DATASETS[name]
    if folder == "generations" or relative == f"{name}/{NO_WINDOW}" or file.startswith("."):
        return None
    if path.suffix != ".parquet":
        return Damage(relative, "is no file of a lake")
    if folder == "compacted":
        return _problem_of_merged(root, dataset, path, relative)
    window = parse_window(folder.removeprefix(_FOLDER))
    windows = () if window is None else (window,)
    reason = _reason(path, dataset)
    return None if reason is None else Damage(relative, reason, False, name, windows)


def _problem_of_merged(root: Path, dataset: Dataset, path: Path, relative: str) -> Damage | None:
    manifest = Manifest.load(root)
    if not _MERGED.fullmatch(path.name):
        return None  # a summary: see _summaries
    listed = next((f for f in manifest.files(dataset.name) if f.path == relative), None)
    if listed is None:
        garbage = {entry.path for entry in manifest.garbage}
        return None if relative in garbage else Damage(relative, "is no longer used", True)
    reason = _reason(path, dataset, merged=True)
    windows = tuple(
        w for first, last in listed.windows for w in range(first, last + 1, WINDOW_BLOCKS)
    )
    return None if reason is None else Damage(relative, reason, False, dataset.name, windows)


def _reason(path: Path, dataset: Dataset, *, merged: bool = False) -> str | None:
    """Why a file cannot be read as its dataset's; None where it can."""
    try:
        if merged:
            listed_parts(path, dataset)
        for _ in read_rows(path, dataset, 0, _ALL):
            pass
    except LakeError as error:
        return str(error)
    except FileNotFoundError:
        return "is not there"
    return None


def _named_in(root: Path, said: str) -> Iterator[Path]:
    """The dataset files that a reader's error names."""
    for text in re.findall(re.escape(str(root)) + r"/[^\"'\n]*?\.parquet", said):
        path = Path(text)
        if len(path.relative_to(root).parts) == 3 and path.parts[-3] in DATASETS:
            yield path


def _manifest(root: Path, *, rebuild: bool = True) -> list[Damage]:
    path = root / MANIFEST
    try:
        Manifest.load(root)
        reason = None if path.exists() or not _merged_files(root) else "is missing"
    except LakeFileDamaged as error:
        reason = str(error)
    if reason is None:
        return []
    if rebuild:
        with suppress(FileNotFoundError):
            path.replace(path.with_name(f"{MANIFEST}.damaged"))
        _rebuilt_manifest(root).save(root)
    return [Damage(MANIFEST, reason, derived=True)]


def _merged_files(root: Path) -> list[Path]:
    return [path for path in root.glob("*/compacted/*.parquet") if _MERGED.fullmatch(path.name)]


def _rebuilt_manifest(root: Path) -> Manifest:
    """What the merged files say they hold; the newest of a day counts.

    A window that has files of its own is read from these: it left its merged file, or was merged
    so lately that they are still there, with the same rows.
    """
    generations = [int(p.stem) for p in root.glob("*/generations/*.parquet") if p.stem.isdecimal()]
    compacted: dict[str, tuple[CompactedFile, ...]] = {}
    garbage: list[Garbage] = []
    newest_first = sorted(
        ((path, int(_MERGED.fullmatch(path.name)[3])) for path in _merged_files(root)),  # type: ignore[index]
        key=lambda found: -found[1],
    )
    taken: set[tuple[str, str]] = set()
    for path, generation in newest_first:
        generations.append(generation)
        name = path.parent.parent.name
        day = name, path.name.partition("-")[0]
        if name not in DATASETS:
            continue
        relative = str(path.relative_to(root))
        if day in taken:
            garbage.append(Garbage(relative, time.time()))
            continue
        try:
            parts = listed_parts(path, DATASETS[name])
        except LakeError:
            continue  # its windows are found missing, and the file by `check`
        taken.add(day)
        windows = {
            part.window
            for part in parts
            if not any((root / name / f"{_FOLDER}{part.window}").glob("*.parquet"))
        }
        beside = [summary.beside(relative) for summary in summaries_of(name)]
        summaries = tuple(each for each in beside if (root / each).exists())
        if windows:
            file = CompactedFile(relative, to_ranges(windows), summaries)
            compacted[name] = tuple(
                sorted((*compacted.get(name, ()), file), key=lambda each: each.windows)
            )
    return Manifest(max(generations, default=0) + 1, compacted, tuple(garbage))


def _odd_folders(root: Path) -> list[Damage]:
    """Folders that are named like a window's and are none: a query could not read past them."""
    return [
        Damage(str(folder.relative_to(root)), "is no window: its name must be a multiple of 30")
        for name in DATASETS
        for folder in sorted((root / name).glob(f"{_FOLDER}*"))
        if folder.name != NO_WINDOW.partition("/")[0]
        and parse_window(folder.name.removeprefix(_FOLDER)) is None
    ]


def _summaries(root: Path) -> list[Damage]:
    """Write summaries again that are missing or cannot be read."""
    found = _damaged_summaries(root)
    for problem in found:
        merged = problem.path.partition(".parquet")[0].rpartition("/")[2]
        name, day, generation = problem.path.partition("/")[0], *merged.split(".")[:2]
        write_summaries(root, name, f"{name}/compacted/{day}.{generation}.parquet")
    return found


def _damaged_summaries(root: Path) -> list[Damage]:
    try:
        manifest = Manifest.load(root)
    except LakeFileDamaged:
        return []
    return [
        Damage(path, reason, derived=True)
        for name, files in manifest.compacted.items()
        for file in files
        for summary in summaries_of(name)
        if (path := summary.beside(file.path)) in file.summaries
        and (reason := _reason(root / path, summary.rows)) is not None
    ]


def _temporary(root: Path) -> list[Damage]:
    before = time.time() - STALE_SECONDS
    return [
        Damage(str(path.relative_to(root)), "was left by a process that ended", derived=True)
        for path in sorted([*root.glob(".*.tmp"), *root.glob("*/*/.*.tmp")])
        if path.stat().st_mtime < before
    ]


def _catalogue(root: Path, *, rebuild: bool = True) -> list[Damage]:
    """Publish the catalogue again where it, or an empty file that it needs, is not as it should."""
    try:
        manifest = Manifest.load(root)
    except LakeFileDamaged:
        return []
    if not any((root / name).exists() for name in (CATALOGUE, *DATASETS)):
        return []  # nothing was ever stored
    found = [
        Damage(path, reason, derived=True)
        for dataset in DATASETS.values()
        for path in (
            f"{dataset.name}/{NO_WINDOW}",
            generation_file(dataset.name, manifest.generation),
        )
        if (reason := _opened(root / path, dataset)) is not None
    ]
    if published_edition(root) != (edition(root), manifest.generation):
        found.append(Damage(CATALOGUE, "is missing, damaged or of another lake", derived=True))
    if found and rebuild:
        publish(root)
    return found


def _opened(path: Path, dataset: Dataset) -> str | None:
    try:
        open_file(path, dataset).close()
    except LakeError as error:
        return str(error)
    except FileNotFoundError:
        return "is not there"
    return None
