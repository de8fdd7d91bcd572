"""Which windows of the lake live in compacted files. One small JSON file, replaced atomically.

The manifest decides: a window it lists is read from its compacted file, whatever else lies in
the window's folder; any other window is read from its folder.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.resources.files import published
from windrow.resources.warehouse.files import LakeFileDamaged

MANIFEST = "manifest.json"

Ranges = tuple[tuple[int, int], ...]
"""First and last window of each unbroken run of windows, ascending."""


def to_ranges(windows: Iterable[int]) -> Ranges:
    """Windows as unbroken runs."""
    runs: list[list[int]] = []
    for window in sorted(set(windows)):
        if runs and window == runs[-1][1] + WINDOW_BLOCKS:
            runs[-1][1] = window
        else:
            runs.append([window, window])
    return tuple((first, last) for first, last in runs)


def without(ranges: Ranges, window: int) -> Ranges:
    """The runs less one window."""
    return to_ranges(w for first, last in ranges for w in _windows(first, last) if w != window)


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path!r} leaves the lake")
    return path


def _windows(first: int, last: int) -> range:
    return range(first, last + 1, WINDOW_BLOCKS)


@dataclass(frozen=True)
class CompactedFile:
    """path: relative to the lake. windows: those of its rows that count.

    summaries: files beside it, as lake_summaries names them, relative to the lake.
    """

    path: str
    windows: Ranges
    summaries: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that comes and goes with it."""
        return (self.path, *self.summaries)

    def holds(self, window: int) -> bool:
        """Whether the window's rows are read from here."""
        return any(first <= window <= last for first, last in self.windows)


@dataclass(frozen=True)
class Garbage:
    """A file nobody new reads. path: relative to the lake; since: unix seconds."""

    path: str
    since: float


@dataclass(frozen=True)
class Manifest:
    """generation: counts the changes, and names the views made for each."""

    generation: int = 0
    compacted: Mapping[str, tuple[CompactedFile, ...]] = field(default_factory=dict)
    garbage: tuple[Garbage, ...] = ()

    @classmethod
    def load(cls, root: Path) -> Self:
        """The lake's manifest; an empty one before the first compaction."""
        path = root / MANIFEST
        try:
            return cls.parse(path.read_bytes(), path)
        except FileNotFoundError:
            return cls()

    @classmethod
    def parse(cls, content: bytes | str, where: Path | str) -> Self:
        """A manifest from its JSON. Raises LakeFileDamaged, which names where it was."""
        try:
            document = json.loads(content)
            return cls(
                int(document["generation"]),
                {
                    dataset: tuple(
                        CompactedFile(
                            _inside(f["path"]),
                            tuple((int(a), int(b)) for a, b in f["windows"]),
                            tuple(_inside(path) for path in f.get("summaries", ())),
                        )
                        for f in files
                    )
                    for dataset, files in document["compacted"].items()
                },
                tuple(Garbage(_inside(g["path"]), float(g["since"])) for g in document["garbage"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LakeFileDamaged(
                f"{where} is damaged ({error!r}). Restore it from a backup: it says which windows "
                "live in compacted files."
            ) from error

    def save(self, root: Path) -> None:
        """Make this the lake's manifest."""
        with published(root / MANIFEST, replace=True) as temporary:
            temporary.write_text(json.dumps(asdict(self), separators=(",", ":")))

    def files(self, dataset: str) -> tuple[CompactedFile, ...]:
        """A dataset's compacted files."""
        return self.compacted.get(dataset, ())

    def file_of(self, dataset: str, window: int) -> CompactedFile | None:
        """The compacted file a window is read from, if it is."""
        return next((file for file in self.files(dataset) if file.holds(window)), None)
