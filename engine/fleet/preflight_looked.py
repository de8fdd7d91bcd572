"""What a preflight looks at, and how a number is held against a rule."""

from dataclasses import dataclass
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.facts import Facts
from windrow.engine.fleet.inventory import Node, WireGuard
from windrow.engine.fleet.preflight import Measured

GIB: Final = 2**30


@dataclass(frozen=True)
class Looked:
    """Everything that was looked at. Sizes in bytes, offsets in seconds.

    clock_offset: the node's clock less the asker's. reachable: by port, whether the asker could
    connect to the public address; ports that were not tried are not there. callback_salt: salt
    under which the node's address was asked for, None if it was not. uids: hotkeys of our coldkey
    on the subnet, None where no chain was asked.
    """

    node: Node
    wireguard: WireGuard
    facts: Facts
    measured: Measured
    clock_offset: float
    reachable: dict[int, bool]
    callback_salt: str | None = None
    uids: int | None = None

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


def exactly(check: str, measured: int, needed: int, what: str) -> NodeCheck:
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
        remedy="" if passed else "nvidia-smi -L; mend the machine or fleet.yaml",
    )
