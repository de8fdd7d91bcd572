"""Sets of miners over the last windows, counted (grail-validation §4.1, §14)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class RollingHistory:
    """The last `length` sets of hotkeys, oldest first, and in how many of them each hotkey is.

    A hotkey that fell out of the last set keeps a count of 0.
    """

    length: int
    sets: tuple[frozenset[str], ...] = ()
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def after(self, current: Iterable[str]) -> "RollingHistory":
        """The history one window later."""
        newest = frozenset(current)
        counts = dict(self.counts)
        kept = self.sets
        if len(kept) == self.length:
            for hotkey in kept[0]:
                counts[hotkey] = max(0, counts.get(hotkey, 0) - 1)
            kept = kept[1:]
        for hotkey in newest:
            counts[hotkey] = counts.get(hotkey, 0) + 1
        return RollingHistory(self.length, (*kept, newest), MappingProxyType(counts))

    def count(self, hotkey: str) -> int:
        return self.counts.get(hotkey, 0)

    def absent(self, hotkeys: Sequence[str]) -> list[str]:
        """Those of the hotkeys that are in no set, in the order given."""
        return [hotkey for hotkey in hotkeys if not self.count(hotkey)]
