"""Hardware classes, and the settings that name a value for each (§2).

The figures are what the network declares. Nothing in it measures them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator

Number = TypeVar("Number", int, float)

EXECUTOR_LIFE_SECONDS: Final = 1200
"""An executor that runs longer is killed."""


@dataclass(frozen=True)
class HardwareClass:
    """gpu_gigabytes: memory of its GPU, 0 without one. letter: its name in commitments on chain.

    start_seconds: time its executor may take to start; seed_start_seconds: in December 2024, None
    where the class did not exist.
    """

    name: str
    gpu_gigabytes: int
    start_seconds: int
    seed_start_seconds: int | None
    letter: str


DEFAULT_CLASS: Final = "spin_up-4min.gpu-24gb"
LLM_CLASS: Final = "always_on.llm.a6000"

CLASSES: Final = {
    one.name: one
    for one in (
        HardwareClass(DEFAULT_CLASS, 24, 240, 240, "S"),
        HardwareClass("always_on.gpu-24gb", 24, 3, 0, "A"),
        HardwareClass(LLM_CLASS, 48, 30, 240, "L"),
        HardwareClass("always_on.test", 0, 3, None, "T"),
        HardwareClass("always_on.cpu.8c.16gb", 0, 30, None, "C"),
    )
}


def _known(name: str) -> str:
    if name not in CLASSES:
        raise ValueError(f"{name[:60]!r} is no class; there are {', '.join(CLASSES)}")
    return name


ClassName = Annotated[str, AfterValidator(_known)]
"""A class by its name, as messages and receipts carry it."""


def network_weights(text: str) -> dict[str, float]:
    """Weights of `class=weight,...`; what cannot be read is left out in silence."""
    return _values(text, float)


def network_limits(text: str) -> dict[str, int]:
    """Executors of a class that count per miner; a negative number is not read either."""
    return _values(text, _limit)


def strict_weights(text: str) -> dict[str, float]:
    """The same without weights that no share can be made of: negative, infinite or no number."""
    weights = network_weights(text)
    return {
        name: weight for name, weight in weights.items() if math.isfinite(weight) and weight >= 0
    }


def _limit(text: str) -> int:
    limit = int(text)
    if limit < 0:
        raise ValueError(f"{limit} executors cannot be allowed")
    return limit


def _values(text: str, read: Callable[[str], Number]) -> dict[str, Number]:
    values: dict[str, Number] = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or name not in CLASSES:
            continue
        try:
            values[name] = read(value)
        except ValueError:
            continue
    return values
