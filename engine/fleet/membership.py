"""What a Bittensor subnet says of a miner, and which subnets the networks are."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

NETUIDS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "chutes": {"finney": 64},
        "compute-subnet": {"finney": 27, "test": 15},
        "compute-horde": {"finney": 12},
    }
)
"""Numbers by network and chain (chutes §2, compute-subnet §1, compute-horde §8)."""


@dataclass(frozen=True)
class Membership:
    """A hotkey on a subnet as of one block.

    uid: None where it is not registered. siblings: registered hotkeys of the same coldkey, itself
    among them. axon: announced `address:port`, None where nothing is. incentive: share in [0, 1].
    """

    netuid: int
    uid: int | None
    siblings: int
    axon: str | None
    incentive: float
