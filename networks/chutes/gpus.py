"""The cards Chutes knows, what a device must report to be one of them, and what it is worth (§3.7).

The table is the validator's of September 2025; it changes every few months, so a
live planner fetches `/nodes/supported` and passes it in where a function takes a table.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from windrow import WindrowError


@dataclass(frozen=True)
class Card:
    """One short reference of the table.

    pattern: found in the product name. memory: GB (10^9 bytes). clocks in MHz. price: US dollars
    per hour. estimate: seconds the network's proof takes for `iterations`.
    """

    short_ref: str
    pattern: str
    memory: int
    processors: int
    base_clock: int
    boost_clock: int
    price: float
    iterations: int
    estimate: int


def _card(
    short_ref: str,
    pattern: str,
    memory: int,
    processors: int,
    clocks: tuple[int, int],
    price: float,
    proof: tuple[int, int],
) -> Card:
    return Card(short_ref, pattern, memory, processors, *clocks, price, *proof)


_CARDS: Final = (
    _card("3090", "RTX 3090", 24, 82, (1395, 1695), 0.12, (1, 70)),
    _card("4090", "RTX 4090", 24, 128, (2235, 2520), 0.25, (2, 65)),
    _card("5090", "RTX 5090", 32, 170, (2017, 2407), 0.35, (2, 60)),
    _card("a4000", "RTX A4000(?! Ada)", 16, 48, (765, 1560), 0.1, (1, 75)),
    _card("a4000_ada", "RTX 4000 Ada", 20, 48, (765, 2175), 0.11, (1, 80)),
    _card("a5000", "RTX A5000", 24, 64, (1170, 1695), 0.18, (1, 92)),
    _card("a6000", "RTX A6000(?! Ada)", 48, 84, (1455, 1860), 0.33, (1, 140)),
    _card("a6000_ada", "RTX 6000 Ada", 48, 142, (915, 2505), 0.36, (1, 60)),
    _card("pro_6000", "RTX PRO 6000", 96, 188, (1590, 2617), 1.1, (1, 103)),
    _card("l4", "L4(?!0)", 24, 58, (795, 2040), 0.17, (1, 85)),
    _card("a10", "A10(?!0)(?!G)", 24, 72, (1110, 1710), 0.25, (1, 82)),
    _card("a40", "A40", 48, 84, (1305, 1740), 0.35, (1, 142)),
    _card("l40", "L40(?!S)", 48, 142, (735, 2490), 0.35, (1, 60)),
    _card("l40s", "L40S", 48, 142, (1065, 2520), 0.41, (1, 60)),
    _card("a100_40gb", "A100.?PCIE.?40GB", 40, 108, (1065, 1410), 0.55, (4, 60)),
    _card("a100_40gb_sxm", "A100.?SXM.?.?40GB", 40, 108, (1065, 1410), 0.57, (4, 60)),
    _card("a100", "A100.?80GB.?PCIe", 80, 108, (1065, 1410), 0.6, (2, 58)),
    _card("a100_sxm", "A100.?SXM.?.?80GB", 80, 108, (1275, 1410), 0.62, (3, 70)),
    _card("h100", "H100.*PCIe", 80, 114, (1095, 1755), 1.5, (2, 62)),
    _card("h100_nvl", "H100.*NVL", 96, 132, (1590, 1980), 1.55, (3, 75)),
    _card("h100_sxm", "H100.*HBM3", 80, 132, (1590, 1980), 1.7, (5, 70)),
    _card("h800", "H800.*PCIe", 80, 114, (1095, 1755), 1.3, (3, 75)),
    _card("h20", " H20$", 96, 78, (1590, 1980), 0.6, (1, 300)),
    _card("h200", " H200", 140, 132, (1590, 1980), 2.3, (3, 70)),
    _card("mi300x", "gfx942:sramecc", 192, 304, (1600, 2100), 2.1, (2, 75)),
    _card("b200", " B200", 192, 148, (1590, 1965), 3.5, (2, 75)),
)

CARDS: Final[Mapping[str, Card]] = MappingProxyType({card.short_ref: card for card in _CARDS})
"""By short reference, in the table's order: a name belongs to the first whose pattern it holds."""

PORTS: Final = range(80, 65536)
PRIVATE_FACTOR: Final = 16
"""A private instance, or that of a job, counts so many times as much."""


def card_of(name: str, cards: Mapping[str, Card] = CARDS) -> Card | None:
    """The card a product name stands for: the first in the table whose pattern it holds (§6.3)."""
    return next((card for card in cards.values() if re.search(card.pattern, name)), None)


@dataclass(frozen=True)
class Device:
    """What a node says of one card. memory: bytes; clock_rate: kHz; identifier: short reference.

    All three numbers are those of OpenCL and CUDA (§6.1). None: not measured, and not compared.
    """

    name: str
    memory: int | None
    processors: int | None
    clock_rate: float | None
    identifier: str
    port: int | None = None


def device_problem(device: Device, cards: Mapping[str, Card] = CARDS) -> str | None:
    """Why a validator refuses a device, or None (§6.3). All numbers are the node's own word."""
    card = card_of(device.name, cards)
    if card is None:
        return f"no known card is called {device.name[:64]!r}"
    if device.memory is not None:
        gigabytes = device.memory // 10**9
        if not card.memory - 1 <= gigabytes <= card.memory * 2**30 / 10**9 + 1:
            return f"{gigabytes} GB of memory; a {card.short_ref} has {card.memory}"
    if device.processors is not None and device.processors != card.processors:
        return f"{device.processors} processors; a {card.short_ref} has {card.processors}"
    if device.clock_rate is not None:
        megahertz = device.clock_rate / 1000
        if not card.base_clock <= megahertz <= card.boost_clock * 1.1:
            return (
                f"a clock of {megahertz:.0f} MHz; a {card.short_ref} runs at {card.base_clock} to "
                f"{card.boost_clock * 1.1:.0f}"
            )
    if device.identifier != card.short_ref:
        return f"it is a {card.short_ref}, not a {device.identifier[:32]}"
    if device.port is not None and device.port not in PORTS:
        return f"port {device.port} is not in {PORTS.start} to {PORTS.stop - 1}"
    return None


def registered_in_time(elapsed: float, estimate: float) -> bool:
    """Whether a proof at registration took the time it should, in seconds (§6.3)."""
    return 0.55 * estimate < elapsed < 1.70 * estimate


def launched_in_time(elapsed: float, estimate: float) -> bool:
    """Whether a proof at the launch of an instance came in time, in seconds (§6.4)."""
    return elapsed < 2.15 * estimate


class InvalidSelector(WindrowError):
    """A node selector asks for what cannot be, or for no card there is."""


@dataclass(frozen=True)
class Selection:
    """What a selector means: the cards that do, and the price of the cheapest of them (§3.8).

    multiplier: gpu_count times the price of the cheapest over that of the dearest in the table.
    """

    supported: tuple[str, ...]
    multiplier: float
    price_per_hour: float

    @property
    def private_multiplier(self) -> float:
        """Multiplier of a private instance."""
        return self.multiplier * PRIVATE_FACTOR


def select(selector: Mapping[str, object], cards: Mapping[str, Card] = CARDS) -> Selection:
    """The cards a node selector supports (§3.8, September 2025). Raises InvalidSelector."""
    count = _whole(selector.get("gpu_count", 1), "gpu_count", range(1, 9))
    least = _whole(selector.get("min_vram_gb_per_gpu", 16), "min_vram_gb_per_gpu", range(16, 141))
    include, exclude = _names(selector, "include", cards), _names(selector, "exclude", cards)
    supported = [
        name
        for name in (include or cards)
        if name not in exclude and name in cards and cards[name].memory >= least
    ]
    if not supported:
        raise InvalidSelector(f"no card meets the selector {dict(selector)}; ask for less")
    best = max(card.price for card in cards.values())
    multiplier = count * min(cards[name].price for name in supported) / best
    return Selection(tuple(sorted(supported)), multiplier, best * multiplier)


def _whole(value: object, name: str, allowed: range) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise InvalidSelector(f"{name} is {value!r}, not {allowed.start} to {allowed.stop - 1}")
    return value


def _names(selector: Mapping[str, object], key: str, cards: Mapping[str, Card]) -> list[str]:
    """The names as they are written: only their check ignores case, as the network's does."""
    names = selector.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidSelector(f"{key} is no list of short references")
    for name in names:
        if name.lower() not in cards:
            raise InvalidSelector(f"{key} names {name[:32]!r}, which is no card of the table")
    return names


def gigabytes_of_memory(card: Card) -> tuple[int, int]:
    """Least and most whole GB (10^9 bytes) a device of this card may report (§6.3)."""
    return card.memory - 1, math.floor(card.memory * 2**30 / 10**9 + 1)
