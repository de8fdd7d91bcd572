"""Whether the times of an attestation fit the card a node claims, or what it did before.

The numbers are vendors' nominal ones and have not been measured by us, so a card that is faster
than its bounds is a question (None), never a failure; once five good runs of the same card,
driver and backend are known, their median takes the table's place (chutes §6.6).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from windrow.engine.fleet.attestation_plan import Plan

STEP_SECONDS: Final = 1e-3
"""Time each step of the walk may add for its randomness and digest, which the host computes."""

ROUND_TRIP: Final = 1.0
"""Seconds the way there and back may take, with the answers' bytes."""

LEAST_HISTORY: Final = 5


@dataclass(frozen=True)
class Peak:
    """A card's nominal dense int8 operations and memory bytes per second."""

    operations: float
    bandwidth: float


_NOMINAL: Final = {  # TOPS of int8 (chutes §6.6) and GB/s, from vendors' sheets
    "3090": (284, 936),
    "4090": (660, 1008),
    "5090": (838, 1792),
    "a5000": (222, 768),
    "a6000": (310, 768),
    "a6000_ada": (728, 960),
    "l4": (242, 300),
    "a10": (250, 600),
    "a40": (299, 696),
    "l40": (362, 864),
    "l40s": (733, 864),
    "a100_40gb": (624, 1555),
    "a100_40gb_sxm": (624, 1555),
    "a100": (624, 1935),
    "a100_sxm": (624, 2039),
    "h100": (1513, 2039),
    "h100_nvl": (1671, 3938),
    "h100_sxm": (1979, 3350),
    "h200": (1979, 4800),
    "h20": (296, 4000),
    "b200": (4500, 8000),
    "mi300x": (2615, 5300),
    "pro_6000": (1000, 1792),
}

PEAKS: Final[Mapping[str, Peak]] = MappingProxyType(
    {name: Peak(tops * 1e12, rate * 1e9) for name, (tops, rate) in _NOMINAL.items()}
)
"""By short reference."""


@dataclass(frozen=True)
class TimeVerdict:
    """verdict: False is too slow, None too fast or not to be told; least, most: seconds."""

    verdict: bool | None
    least: float | None
    most: float | None
    reason: str


def timing_verdict(
    plan: Plan,
    seconds: float,
    *,
    peak: Peak | None,
    history: Sequence[float] = (),
    round_trip: float = ROUND_TRIP,
) -> TimeVerdict:
    """Whether filling and walking took as long as they should, by the asker's clock.

    history: seconds of known good runs of the same plan, card, driver and backend.
    """
    if len(history) >= LEAST_HISTORY:
        least, most = _band(history)
        known = f"the last {len(history)} good runs"
    elif peak is not None:
        least, most = _nominal(plan, peak, round_trip)
        known = "the card's nominal speed"
    else:
        return TimeVerdict(None, None, None, "no speed of this device is known, and no history")
    if seconds > most:
        reason = f"{seconds:.3g} s; by {known} at most {most:.3g}: shared, swapped or another card"
        return TimeVerdict(False, least, most, reason)
    if seconds < least:
        reason = f"{seconds:.3g} s; by {known} at least {least:.3g}: faster than claimed, look"
        return TimeVerdict(None, least, most, reason)
    return TimeVerdict(True, least, most, "")


def residency_verdict(
    plan: Plan,
    seconds: float,
    committed: float,
    *,
    peak: Peak | None,
    recomputed: bool,
    round_trip: float = ROUND_TRIP,
) -> TimeVerdict:
    """Whether the second answer came sooner than matrices could be made again.

    committed: seconds of the first answer. Making all of them again takes the larger part of it,
    so an answer within a quarter of it, past the way there and back, read what was kept. A known
    card must also read them at a quarter of its memory's speed.
    """
    if recomputed:
        return TimeVerdict(None, None, None, "the node keeps nothing between requests, it says")
    most = 0.25 * committed
    if peak is not None:
        most = min(most, plan.resident_bytes / (0.25 * peak.bandwidth))
    if most + round_trip > 0.5 * committed:
        reason = f"{committed:.3g} s of work are too few to tell it from a {round_trip:.3g} s way"
        return TimeVerdict(None, None, most, reason)
    most += round_trip
    if seconds > most:
        reason = f"{seconds:.3g} s to read what should be there, at most {most:.3g}"
        return TimeVerdict(False, None, most, reason)
    return TimeVerdict(True, None, most, "")


def _nominal(plan: Plan, peak: Peak, round_trip: float) -> tuple[float, float]:
    fill, walk = plan.fill_operations / peak.operations, plan.walk_bytes / peak.bandwidth
    slow = fill / 0.35 + walk / 0.35 + STEP_SECONDS * plan.steps
    return 0.9 * (fill + walk), slow + round_trip


def _band(history: Sequence[float]) -> tuple[float, float]:
    """0.85 to 1.35 of the median, wider where good runs scatter more than that."""
    median = statistics.median(history)
    spread = 6 * 1.4826 * statistics.median(abs(value - median) for value in history)
    return min(0.85 * median, median - spread), max(1.35 * median, median + spread)
