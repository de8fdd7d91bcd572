"""The address of a machine and its ports, as whoever asked saw them from outside.

chutes §12.5-7, gonka §3 P12.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.preflight_looked import Looked

PRIVATE_PORTS: Final = (9100, 9200, 26657, 8080, 5050, 2375, 8000, 32000)
"""Ports that must not be open to everyone: Gonka's admin interfaces, Docker, ML servers."""
NODE_PORTS: Final = range(30000, 32768)


def is_public(address: str | None) -> bool:
    """Whether an address is an IPv4 one that the internet can reach (chutes §12.5)."""
    if address is None:
        return False
    found = ipaddress.ip_address(address)
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
        remedy="" if public else "rent a static public IPv4 and name it as public_address",
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
            reason=f"not measured: {looked.not_called or 'nobody asked where it comes from'}",
            remedy="set WINDROW_CALLBACK to http://ADDRESS:PORT, where nodes reach this machine",
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
        remedy = "ask the provider for 1:1 NAT, or declare the address it leaves by"
    else:
        reason = f"of {asked} requests the node was to make, {peers[None]} never came"
        remedy = (
            "on the node: curl -v to WINDROW_CALLBACK must get 404; if none can, open its port here"
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
            remedy="ask from another machine, through `windrow agent` on the node",
        )
    opened = looked.reached.opened if looked.reached else ()
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
            remedy = "declare the address the internet knows as public_address"
        elif not shown and probe.accepts and port not in opened and not probe.tcp:
            verdict = None
            reason = f"port {port} is in use: something answers there, perhaps not this node"
            remedy = f"free the port and ask again: sudo ss -ltnp 'sport = :{port}'"
        elif not shown:
            what = "UDP does not reach" if probe.tcp else "nothing reaches"
            other = "something else answers at" if probe.accepts and not probe.tcp else what
            reason = f"{other} port {port} of {address}"
            remedy = f"sudo ufw allow {port}, and the provider's firewall, 1:1, TCP and UDP"
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
            remedy="" if hairpin else "ask the provider for hairpin NAT, or add the address to lo",
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
        remedy="" if not busy else f"sudo ss -ltnp 'sport = :{busy[0]}' names who has it",
    )


def _exposed(looked: Looked) -> Iterator[NodeCheck]:
    """What is for the operator alone: as the asker found it, and as the node tells (gonka P12)."""
    told = {port for address, port in looked.measured.listening if _open_to_all(address)}
    private = set(PRIVATE_PORTS) - set(looked.node.ports)
    exposed = sorted((told & private) | looked.exposed)
    seen = ", ".join(map(str, sorted(looked.exposed)))
    yield NodeCheck(
        "private_ports_closed",
        "gonka" if looked.serves("gonka") else WINDROW,
        None,
        not exposed,
        measured=float(len(exposed)),
        needed=0.0,
        unit="ports",
        reason=""
        if not exposed
        else f"{', '.join(map(str, exposed))} are open to everyone"
        + (f"; {seen} took a connection from here" if seen else ""),
        remedy="" if not exposed else f"bind them to 127.0.0.1, or: sudo ufw deny {exposed[0]}",
    )


def _open_to_all(address: str) -> bool:
    return address in {"0.0.0.0", "::", ""}  # noqa: S104 - compared, not bound


RULES: Final = (
    _address,
    _ports,
    _free,
    _exposed,
)
