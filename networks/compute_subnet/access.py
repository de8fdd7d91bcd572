"""Who may call a miner, and whom a validator asks (§3.2, §8).

The network's rules are kept as they run; each has a sibling without its fault.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LEAST_STAKE: Final = 1024.0


@dataclass(frozen=True)
class Access:
    """Whether a caller is refused, and why, in the network's words."""

    rejected: bool
    reason: str


@dataclass(frozen=True)
class Lists:
    """Hotkeys a miner knows. stakes: of every registered hotkey."""

    stakes: Mapping[str, float]
    whitelist: Collection[str]
    blacklist: Collection[str]
    exploiters: Collection[str]
    allow_low_stake: bool


def network_access(caller: str, lists: Lists) -> Access:
    """What a v1.8.3 miner answers: everyone who is not on its whitelist is let in (§3.2)."""
    if lists.whitelist and caller not in lists.whitelist:
        return Access(False, "Whitelisted hotkey")
    return _of_registered(caller, lists)


def strict_access(caller: str, lists: Lists) -> Access:
    """What was meant: the lists of the bad first, then the whitelist if there is one (§3.2)."""
    access = _of_registered(caller, lists)
    if not access.rejected and lists.whitelist and caller not in lists.whitelist:
        return Access(True, "Hotkey is not on the whitelist")
    return access


def _of_registered(caller: str, lists: Lists) -> Access:
    if caller not in lists.stakes:
        return Access(True, "Unrecognized hotkey")
    if lists.stakes[caller] < LEAST_STAKE and not lists.allow_low_stake:
        return Access(True, "Not enough stake!")
    if caller in lists.blacklist:
        return Access(True, "Blacklisted hotkey")
    if caller in lists.exploiters:
        return Access(True, f"Blacklisted a Allocate request from an exploiter hotkey: {caller}")
    return Access(False, "Hotkey recognized!")


def blacklisted(
    hotkey: str,
    coldkey: str,
    hotkeys: Collection[str],
    coldkeys: Collection[str],
    exploiter_hotkeys: Collection[str],
    exploiter_coldkeys: Collection[str],
) -> bool:
    """Whether a validator leaves a miner out (§8)."""
    return (
        hotkey in hotkeys
        or coldkey in coldkeys
        or hotkey in exploiter_hotkeys
        or coldkey in exploiter_coldkeys
    )


@dataclass(frozen=True)
class Axon:
    """A miner's announced address. version: its number, 0 when none was announced."""

    uid: int
    ip: str
    version: int


def first_of_each_address(axons: Sequence[Axon]) -> list[Axon]:
    """The axons a validator asks: of an address only the uid that is named first (§8)."""
    seen: set[str] = set()
    kept = []
    for axon in axons:
        if axon.ip not in seen:
            seen.add(axon.ip)
            kept.append(axon)
    return kept


def network_of_current_version(
    axons: Sequence[Axon], least: int | None, miners: int, threshold: float
) -> list[Axon]:
    """The axons left once more than `threshold` percent of the miners can be asked (§8).

    The network counts every axon it can ask, whatever its version, and drops all of them when the
    least version cannot be fetched.
    """
    if not miners or 100 * len(axons) / miners <= threshold:
        return list(axons)
    return [axon for axon in axons if least is not None and axon.version >= least]


def strict_of_current_version(
    axons: Sequence[Axon], least: int | None, miners: int, threshold: float
) -> list[Axon]:
    """What was meant: the current ones, once more than `threshold` percent of miners are (§8)."""
    current = [axon for axon in axons if least is None or axon.version >= least]
    return current if miners and 100 * len(current) / miners > threshold else list(axons)


def version_number(version: str) -> int | None:
    """The number a version announces, 100 x major + 10 x minor + patch; None if it has none (§2).

    Numbers of different versions collide: 1.8.13 and 1.9.3 are both 193.
    """
    parts = version.split(".")
    if len(parts) < 3 or not all(part.isascii() and part.isdigit() for part in parts[:3]):
        return None
    major, minor, patch = (int(part) for part in parts[:3])
    return 100 * major + 10 * minor + patch
