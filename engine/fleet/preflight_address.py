"""The address of a machine and its ports, as whoever asked saw them from outside.

chutes §12.5-7, gonka §3 P12.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.inventory import Node
from windrow.engine.fleet.ports import private_ports
from windrow.engine.fleet.preflight_looked import Looked
from windrow.engine.fleet.remedies import close_ports, open_port
from windrow.networks.chutes.ports import NODE_PORTS


def private_of(node: Node) -> dict[int, str]:
    """The ports of a node that must be closed to the internet, and what they are for."""
    private = [entry.port for entry in node.private_ports]
    return private_ports(node.networks, node.public_ports, private)


def is_public(address: str | None) -> bool:
    """Whether an address is an IPv4 one that the internet can reach (chutes §12.5)."""
    if address is None:
        return False
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.version == 4 and found.is_global and not found.is_multicast


def kind_of(address: str) -> str:
    """What an address is that is not public, in words."""
    found = ipaddress.ip_address(address)
    if found.is_loopback:
        return "a loopback address"
    return "an IPv6 address" if found.version == 6 else "a private address"


def _address(looked: Looked) -> Iterator[NodeCheck]:
    """A public address of its own (chutes §12.5)."""
    if not looked.serves("chutes") and not looked.serves("compute-subnet"):
        return
    network = "chutes" if looked.serves("chutes") else "compute-subnet"
    address = looked.node.public_address
    public = is_public(address)
    wrong = f"{address} is {kind_of(address)}" if address else "fleet.yaml declares no address"
    yield NodeCheck(
        "public_address",
        network,
        public,
        public,
        reason="" if public else f"{wrong}, not a public IPv4 one",
        remedy=""
        if public
        else "Rent a static public IPv4 address and declare it as public_address",
    )
    yield _same_out(looked, network)


def _same_out(looked: Looked, network: str) -> NodeCheck:
    """Traffic leaves by the declared address, every time (chutes §6.3, §12.6).

    The network believes one token. Here every request must have come, from that peer.
    """
    if not looked.arrivals:
        return NodeCheck(
            "same_address_out",
            network,
            None,
            None,
            reason=f"not measured: {looked.not_called or 'the node was not asked to call back'}",
            remedy="Set WINDROW_CALLBACK to http://ADDRESS:PORT, where nodes reach this machine",
        )
    address = looked.node.public_address
    peers = Counter(arrival.came_from for arrival in looked.arrivals)
    others = [
        f"{count} from {peer}" for peer, count in peers.items() if peer not in (None, address)
    ]
    asked, right = len(looked.arrivals), peers[address]
    first = looked.arrivals[0]
    if others:
        reason = f"of {asked} requests came {' and '.join(others)}, not from {address}"
        remedy = (
            "Ask the provider for 1:1 NAT, or declare the address that the traffic leaves by as "
            "public_address"
        )
    else:
        reason = f"of {asked} requests the node was to make, {peers[None]} never came"
        remedy = (
            "On the node, curl -v to the address in WINDROW_CALLBACK must get status 404. If it "
            "gets no answer, open that port on the machine that runs Windrow"
        )
    return NodeCheck(
        "same_address_out",
        network,
        first.said == first.expected if network == "chutes" else None,
        right == asked,
        measured=float(right),
        needed=float(asked),
        unit="requests",
        reason="" if right == asked else reason,
        remedy="" if right == asked else remedy,
    )


def _ports(looked: Looked) -> Iterator[NodeCheck]:
    """Ports lead from outside to this very node (chutes §12.7, gonka P12)."""
    address = looked.node.public_address
    if address is None:
        return
    if looked.not_probed:
        yield NodeCheck(
            "port_reachable",
            WINDROW,
            None,
            None,
            reason=f"not measured: {looked.not_probed}",
            remedy="Verify the node from another machine, through `windrow agent` on the node",
        )
    opened = looked.reached.opened if looked.reached else ()
    private = private_of(looked.node)
    for port, probe in sorted(looked.probes.items()):
        chutes = port in NODE_PORTS and looked.serves("chutes")
        shown = probe.tcp and (probe.udp or not chutes)
        verdict: bool | None = shown
        reason, remedy = "", ""
        if shown and not is_public(address):
            verdict = None
            reason = (
                f"the node answers at {address}:{port}, but that is {kind_of(address)}: "
                "it shows nothing of the internet"
            )
            remedy = "Declare the address that the internet knows as public_address"
        elif not shown and probe.accepts and port not in opened and not probe.tcp:
            verdict = None
            reason = f"port {port} is in use: something answers there, perhaps not this node"
            remedy = (
                f"sudo ss -ltnp 'sport = :{port}' names the process. Stop it, and verify the node "
                "again"
            )
        elif not shown:
            what = "UDP does not reach" if probe.tcp else "nothing reaches"
            other = "something else answers at" if probe.accepts and not probe.tcp else what
            reason = f"{other} port {port} of {address}"
            remedy = open_port(port, private, chutes=chutes)
        yield NodeCheck(
            "port_reachable",
            "chutes" if chutes else WINDROW,
            None,
            verdict,
            measured=float(port),
            unit="port",
            reason=reason,
            remedy=remedy,
        )
    hairpin = looked.reached.hairpin if looked.reached else None
    if hairpin is not None and looked.serves("chutes"):
        yield NodeCheck(
            "hairpin",
            "chutes",
            None,
            hairpin,
            reason="" if hairpin else f"the node does not reach itself at {address}",
            remedy="" if hairpin else "Ask the provider for hairpin NAT",
        )


def _free(looked: Looked) -> Iterator[NodeCheck]:
    # A port in use that answers from outside is a service at work.
    used = {port for port, probe in looked.probes.items() if probe.accepts}
    busy = [port for port in looked.measured.busy_ports if port not in used]
    yield NodeCheck(
        "ports_free",
        WINDROW,
        None,
        not busy,
        measured=float(len(busy)),
        needed=0.0,
        unit="ports",
        reason="" if not busy else f"{', '.join(map(str, busy))} are in use or need root",
        remedy="" if not busy else f"sudo ss -ltnp 'sport = :{busy[0]}' names the process",
    )


def _exposed(looked: Looked) -> Iterator[NodeCheck]:
    """Private ports, as the asker found them and as the node tells (gonka §1.3, P12)."""
    node, private = looked.node, private_of(looked.node)
    open_here = {
        port for at, port in looked.measured.listening if port in private and _open_to_all(at, node)
    }
    # A firewall lets some through: whether it stops the others is only seen from outside.
    guarded = {entry.port for entry in node.private_ports if entry.reachable_by}
    exposed = sorted((open_here - guarded) | (looked.exposed & private.keys()))
    seen_closed = looked.probed_private - looked.exposed
    unknown = sorted((open_here & guarded) - looked.exposed - seen_closed)
    tried = sorted(looked.exposed & private.keys())
    reason, remedy = "", ""
    if exposed:
        said = ", ".join(f"{port} ({private[port]})" for port in exposed)
        reason = f"open to everyone: {said}"
        if tried:
            reason += f"; {', '.join(map(str, tried))} took a connection from here"
        remedy = close_ports(exposed)
    elif unknown:
        said = ", ".join(f"{port} ({private[port]})" for port in unknown)
        reason = f"not measured: {said} listens on every address, and was not tried from outside"
        remedy = (
            "Declare public_address and verify the node from a machine that reachable_by does not "
            "name, or bind the port to a private address"
        )
    yield NodeCheck(
        "private_ports_closed",
        "gonka" if looked.serves("gonka") else WINDROW,
        None,
        False if exposed else None if unknown else True,
        measured=float(len(exposed)),
        needed=0.0,
        unit="ports",
        reason=reason,
        remedy=remedy,
    )


def _open_to_all(address: str, node: Node) -> bool:
    """Whether a socket bound to an address can be reached from the internet."""
    if address in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        return True
    return address == node.public_address or is_public(address)


RULES: Final = (
    _address,
    _ports,
    _free,
    _exposed,
)
