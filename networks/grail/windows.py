"""Windows, drand rounds and the two randomness values of a window (grail-protocol §2)."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from windrow.networks.grail.constants import WINDOW_BLOCKS

_WINDOW_KEY: Final = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class DrandChain:
    """One drand chain. genesis: unix seconds of round 1; period: seconds a round lasts.

    public_key: of the chain's signers, 192 hex digits of a point in G2; None where Windrow verifies
    no rounds of the chain.
    """

    name: str
    hash: str
    genesis: int
    period: int
    public_key: str | None = None


QUICKNET: Final = DrandChain(
    name="quicknet",
    hash="52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    genesis=1692803367,
    period=3,
    public_key="83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5"
    "776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76ea"
    "e8991ef5ece45a",
)
MAINNET: Final = DrandChain(
    name="mainnet",
    hash="84b2234fb34e835dccd048255d7ad3194b81af7d978c3bf157e3469592ae4e02",
    genesis=1595431050,
    period=30,
)
DRAND_RELAYS: Final = (
    "https://api.drand.sh",
    "https://drand.cloudflare.com",
    "https://api.drand.secureweb3.com:6875",
)


def window_start(block: int) -> int:
    """First block of the window that holds ``block``."""
    return block // WINDOW_BLOCKS * WINDOW_BLOCKS


def parse_window(key: str) -> int | None:
    """The window a key names, or None: decimal digits, no leading zero, a multiple of 30."""
    if not _WINDOW_KEY.fullmatch(key):
        return None
    window = int(key)
    return window if window % WINDOW_BLOCKS == 0 else None


def validator_target(block: int) -> int:
    """The window validators work on while ``block`` is current: the last closed one."""
    return window_start(block) - WINDOW_BLOCKS


def drand_round(unix_time: int, chain: DrandChain = QUICKNET) -> int:
    """The round of a chain that is current at a time; not clamped before genesis."""
    return (unix_time - chain.genesis) // chain.period + 1


def relay_urls(
    round_number: int | None = None,
    chain: DrandChain = QUICKNET,
    relays: Sequence[str] = DRAND_RELAYS,
) -> tuple[str, ...]:
    """Where to ask for a round (None: the latest), in the order relays are tried."""
    name = "latest" if round_number is None else str(round_number)
    return tuple(f"{relay}/{chain.hash}/public/{name}" for relay in relays)


def miner_randomness(block_hash: str, beacon_randomness: str | None) -> str:
    """R_m, which draws the sketch coefficients: 64 hex digits.

    block_hash: hash of the window's first block as the chain returns it, ``0x`` included.
    beacon_randomness: the drand beacon's hex; None mines without drand. The reference then uses
    the block hash itself, whose ``0x`` its own verifier refuses; the hash of it passes (§1.1).
    """
    return _mix(block_hash, beacon_randomness)


def validator_randomness(next_block_hash: str, beacon_randomness: str | None) -> str:
    """R_v, which opens positions and samples groups: 64 hex digits.

    next_block_hash: hash of the block 30 after the window's first, ``0x`` included.
    """
    return _mix(next_block_hash, beacon_randomness)


def _mix(block_hash: str, beacon_randomness: str | None) -> str:
    text = block_hash + (beacon_randomness or "")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
