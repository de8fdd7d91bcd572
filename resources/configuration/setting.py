"""One setting: its name, what may be given, its default and what it means."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

PREFIX: Final = "WINDROW_"
Found = Mapping[str, Any]
"""The settings read so far by name, and under "guide" the live parts a miner's `.env` asks for."""


@dataclass(frozen=True)
class Setting:
    """One setting, read from `WINDROW_` and its name in capitals.

    default: a text, or what makes one of the settings before it. guide: names the miner guide has
    for it, and guide_parse how theirs is read where that differs. part: the live part that uses it;
    empty for all.
    """

    name: str
    parse: Callable[[str], object]
    default: str | Callable[[Found], str]
    meaning: str
    guide: tuple[str, ...] = ()
    guide_parse: Callable[[str], object] | None = None
    part: str = ""
    secret: bool = False

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    def readers(self) -> Iterator[tuple[str, Callable[[str], object]]]:
        """Every variable the setting is read from, and how, its own first."""
        yield self.variable, self.parse
        for name in self.guide:
            yield name, self.guide_parse or self.parse


def on_bittensor(live: str, embedded: str) -> Callable[[Found], str]:
    """A default that depends on the chain."""
    return lambda found: live if found["chain"] == "bittensor" else embedded
