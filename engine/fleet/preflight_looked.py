"""What a preflight looks at, and how a number is held against a rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.facts import Facts
from windrow.engine.fleet.inventory import Node, WireGuard
from windrow.engine.fleet.membership import Membership
from windrow.engine.fleet.preflight import Measured
from windrow.engine.fleet.preflight_reach import Reached

GIB: Final = 2**30


@dataclass(frozen=True)
class Arrival:
    """A request that the node was to make, once.

    came_from: the peer that made it, None where nobody did. expected: what whoever comes from the
    declared address is told, and said: what the node says it was told.
    """

    came_from: str | None
    expected: str
    said: str | None


@dataclass(frozen=True)
class Probe:
    """A port as the asker found it.

    tcp, udp: the node itself answered there, with the key it was given. accepts: something took a
    connection.
    """

    tcp: bool
    udp: bool
    accepts: bool


@dataclass(frozen=True)
class Looked:
    """Everything that was looked at. Sizes in bytes, offsets in seconds.

    clock_offset: the node's clock less the asker's. reached: what the node says it reaches, None
    where it was not asked, and peers: the others it was to reach. arrivals: requests it was to
    make. probes: ports of its public address. probed_private: private ones there that were tried,
    and exposed: those that took a connection. not_called, not_probed: why it was not tried.
    members: by network, what its subnet says of the miner, or why that is not known.
    """

    node: Node
    wireguard: WireGuard
    facts: Facts
    measured: Measured
    clock_offset: float
    reached: Reached | None = None
    arrivals: tuple[Arrival, ...] = ()
    not_called: str = ""
    probes: Mapping[int, Probe] = field(default_factory=dict)
    probed_private: frozenset[int] = frozenset()
    exposed: frozenset[int] = frozenset()
    not_probed: str = ""
    peers: tuple[str, ...] = ()
    members: Mapping[str, Membership | str] = field(default_factory=dict)

    def serves(self, network: str) -> bool:
        """Whether the node is declared for a network."""
        return network in self.node.networks


def at_least(
    check: str,
    network: str,
    network_verdict: bool | None,
    measured: float,
    needed: float,
    reason: str,
    remedy: str,
    unit: str = "bytes",
) -> NodeCheck:
    """A check that wants at least so much."""
    passed = measured >= needed
    return NodeCheck(
        check,
        network,
        network_verdict,
        passed,
        measured=float(measured),
        needed=float(needed),
        unit=unit,
        reason="" if passed else reason,
        remedy="" if passed else remedy,
    )


def exactly(check: str, measured: int, needed: int, what: str, remedy: str) -> NodeCheck:
    """A check that wants just so many GPUs."""
    passed = measured == needed
    return NodeCheck(
        check,
        WINDROW,
        None,
        passed,
        measured=float(measured),
        needed=float(needed),
        unit="GPUs",
        reason="" if passed else f"{measured} {what}; {needed} expected",
        remedy="" if passed else remedy,
    )
