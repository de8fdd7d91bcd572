"""Which checkpoints a publisher keeps (grail-validation §19.7)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from windrow.networks.grail.checkpoint import (
    delta_dependencies,
    retained_windows,
    window_number,
)

KEPT_FULL: Final = 3
KEPT_DELTAS: Final = 15
_FOLDER: Final = "checkpoint-"


def checkpoint_window(key: str) -> int | None:
    """The window of the checkpoint an object belongs to, None for other objects."""
    for folder in key.split("/"):
        if folder.startswith(_FOLDER):
            return window_number(folder.removeprefix(_FOLDER))
    return None


@dataclass(frozen=True)
class Inventory:
    """Windows a bucket has checkpoints of, newest first. full_only: those without a DELTA."""

    windows: tuple[int, ...]
    full_only: tuple[int, ...]
    deltas: tuple[int, ...]

    @classmethod
    def of(cls, keys: Iterable[str]) -> "Inventory":
        windows: set[int] = set()
        full: set[int] = set()
        deltas: set[int] = set()
        for key in keys:
            window = checkpoint_window(key)
            if window is None:
                continue
            windows.add(window)
            if "/FULL/" in key:
                full.add(window)
            elif "/DELTA/" in key:
                deltas.add(window)
        newest_first = (sorted(found, reverse=True) for found in (windows, full - deltas, deltas))
        return cls(*map(tuple, newest_first))


def published_windows(
    current: int, inventory: Inventory, previous: Mapping[int, int], anchors: Mapping[int, int]
) -> list[int]:
    """Windows whose checkpoints a publisher keeps: the retained ones, the newest, and those that
    the newest deltas are built on. Sorted.

    previous, anchors: by window of a delta, the window it builds on and the FULL its chain ends at.
    """
    full, deltas = inventory.full_only[:KEPT_FULL], inventory.deltas[:KEPT_DELTAS]
    chains = delta_dependencies(deltas, previous, anchors)
    return sorted({*retained_windows(current), *full, *deltas, *chains})
