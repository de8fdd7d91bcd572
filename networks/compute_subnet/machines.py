"""A miner's description of its machine: the oldest score, and what fits a request (§4, §10).

The miner writes it itself and can write anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Details = Mapping[str, Any]
"""A self-report: `cpu`, `gpu`, `hard_disk`, `ram` with their fields, `has_docker` (§4)."""

MOST_EMPTY_REPORTS: Final = 5
"""After so many reports without content a description was meant to be dropped."""

# A part is worth no more than 128 cores of 5 GHz, and the like (§4.1).
_CAPS: Final = {
    "cpu": 128 * 5000 / 1024 / 75,
    "gpu": 104.39552,
    "hard_disk": 18.6264514923,
    "ram": 128.0,
}
_SHARES: Final = {"cpu": 0.025, "gpu": 0.95, "hard_disk": 0.02, "ram": 0.005}
_GIB: Final = 2**30


def hardware_score(details: Details, registered: bool) -> float:
    """The score before v1.1: 10, up to 100 for the parts, 100 for being registered (§4.1).

    A part that lacks a field counts for nothing; a description that lacks a part scores 0. The
    network divides GPU memory it has in MB as if it were bytes, so that counts for nothing either.
    """
    if not _SHARES.keys() <= details.keys():
        return 0.0
    worth = 0.0
    for part, share in _SHARES.items():
        worth += min(_part_score(part, details[part]), _CAPS[part]) * share
    return 10 + 100 * worth + 100 * registered


def _part_score(part: str, has: Details) -> float:
    try:
        match part:
            case "cpu":
                return float(has["count"] * has["frequency"] / 1024 / 75)
            case "gpu":
                speed = (has["graphics_speed"] + has["memory_speed"]) / 2
                return float(has["capacity"] / _GIB * speed / 100_000_000)
            case "hard_disk":
                speed = (has["read_speed"] + has["write_speed"]) / 2
                return float(has["free"] / _GIB * speed / 10_000_000)
            case _:
                return float(has["free"] / _GIB * has["read_speed"] / 200_000)
    except (KeyError, TypeError):
        return 0.0


def fits(details: Details, required: Details) -> bool:
    """Whether a machine meets a request; a field either lacks means that it does not (§10.1).

    GPU memory must be more than what is required, everything else at least as much. A part that
    is required to be nothing is not looked at, but has to be named.
    """
    try:
        return all(
            _meets(part, details[part], required[part])
            for part in ("cpu", "gpu", "hard_disk", "ram")
            if required[part]
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


def _meets(part: str, has: Details, needs: Details) -> bool:
    match part:
        case "cpu":
            return bool(has["count"] >= needs["count"])
        case "gpu":
            return bool(
                has["capacity"] > needs["capacity"]
                and has["count"] >= needs["count"]
                and needs["type"].lower() in has["details"][0]["name"].lower()
            )
        case "hard_disk":
            return bool(has["free"] >= needs["capacity"])
        case _:
            return bool(has["available"] >= needs["capacity"])


def network_updated(
    known: Mapping[str, Details], reports: Sequence[tuple[str, Details]]
) -> dict[str, Details]:
    """Descriptions after a round of reports: one empty report undoes the whole round (§4)."""
    if any(not details for _, details in reports):
        return dict(known)
    return {**known, **dict(reports)}


def strict_updated(
    known: Mapping[str, tuple[Details, int]], reports: Iterable[tuple[str, Details]]
) -> dict[str, tuple[Details, int]]:
    """What was meant: an empty report counts against its own miner, and the fifth drops it (§4).

    The number beside a description is how many empty reports came since it.
    """
    updated = dict(known)
    for hotkey, details in reports:
        if details:
            updated[hotkey] = (details, 0)
        elif hotkey in updated:
            kept, empty = updated[hotkey]
            updated[hotkey] = ({} if empty + 1 >= MOST_EMPTY_REPORTS else kept, empty + 1)
    return updated


def page_of(count: int, number: int, size: int) -> tuple[range, int | None]:
    """Indices of a page of `count` items, from page 1 on, and the next page's number (§10.4)."""
    first = (number - 1) * size
    items = range(count)[max(first, 0) : max(first + size, 0)]
    return items, number + 1 if first + size < count else None
