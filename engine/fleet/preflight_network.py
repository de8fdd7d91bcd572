"""The network around a machine: its address, its ports, the private network, who it is.

chutes §12, gonka §1.3 and §3.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.preflight_looked import Looked
from windrow.networks.chutes.node_resources import address_token

PRIVATE_PORTS: Final = (9100, 9200, 26657, 8080, 5050, 2375, 8000, 32000)
"""Ports that must not be open to everyone: Gonka's admin interfaces, Docker, ML servers."""
NODE_PORTS: Final = range(30000, 32768)


def _address(looked: Looked) -> Iterator[NodeCheck]:
    """A public address of its own, the same in and out (chutes §12.5-6)."""
    if not looked.serves("chutes") and not looked.serves("compute-subnet"):
        return
    network = "chutes" if looked.serves("chutes") else "compute-subnet"
    address = looked.node.public_address
    public = address is not None and ipaddress.ip_address(address).is_global
    yield NodeCheck(
        "public_address",
        network,
        public,
        public,
        reason="" if public else f"{address or 'no address'} is not a public one",
        remedy="" if public else "rent a static public IPv4 and name it as public_address",
    )
    if looked.callback_salt is None or address is None:
        yield NodeCheck(
            "same_address_out",
            network,
            None,
            None,
            reason="not measured: nobody was asked which address the node comes from",
            remedy="on the node, `curl -4 https://ifconfig.co` must print its public_address",
        )
        return
    same = looked.measured.callback_answer == address_token(address, looked.callback_salt, None)
    yield NodeCheck(
        "same_address_out",
        network,
        same,
        same,
        reason="" if same else "traffic leaves by another address than the one declared",
        remedy="" if same else "ask the provider for 1:1 NAT, or declare the address it leaves by",
    )


def _ports(looked: Looked) -> Iterator[NodeCheck]:
    for port, open_ in sorted(looked.reachable.items()):
        yield NodeCheck(
            "port_reachable",
            "chutes" if port in NODE_PORTS and looked.serves("chutes") else WINDROW,
            None,
            open_,
            measured=float(port),
            unit="port",
            reason="" if open_ else f"nobody answers at port {port} of the public address",
            remedy="" if open_ else f"sudo ufw allow {port}, and the provider's firewall too",
        )
    busy = looked.measured.busy_ports
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
    exposed = sorted(
        {port for address, port in looked.measured.listening if _open_to_all(address)}
        & set(PRIVATE_PORTS) - set(looked.node.ports)
    )
    yield NodeCheck(
        "private_ports_closed",
        "gonka" if looked.serves("gonka") else WINDROW,
        None,
        not exposed,
        measured=float(len(exposed)),
        needed=0.0,
        unit="ports",
        reason="" if not exposed else f"{', '.join(map(str, exposed))} are open to everyone",
        remedy="" if not exposed else f"bind them to 127.0.0.1, or: sudo ufw deny {exposed[0]}",
    )


def _open_to_all(address: str) -> bool:
    return address in {"0.0.0.0", "::", ""}  # noqa: S104 - compared, not bound


def _private_network(looked: Looked) -> Iterator[NodeCheck]:
    """WireGuard takes all of 10/8 and its own range (chutes §12.9)."""
    if looked.node.wireguard_address is None:
        return
    ranges = [ipaddress.IPv4Network(looked.wireguard.cidr), ipaddress.IPv4Network("10.0.0.0/8")]
    wrong = []
    for route in looked.measured.routes:
        network, _, interface = route.partition(" ")
        there = ipaddress.IPv4Network(network, strict=False)
        own = interface.startswith(("wg", "cni", "cali", "vxlan"))
        if there.prefixlen and not own and any(there.overlaps(taken) for taken in ranges):
            wrong.append(route)
    yield NodeCheck(
        "wireguard_overlap",
        "chutes",
        None,
        not wrong,
        measured=float(len(wrong)),
        needed=0.0,
        unit="routes",
        reason="" if not wrong else f"{', '.join(wrong[:5])} lie in what WireGuard takes",
        remedy="" if not wrong else "choose another wireguard.cidr, or another private network",
    )
    if looked.node.wireguard_primary:
        forwards = looked.measured.ip_forward is True
        yield NodeCheck(
            "ip_forward",
            "chutes",
            None,
            forwards,
            reason="" if forwards else "the primary does not forward packets",
            remedy="" if forwards else "sudo sysctl -w net.ipv4.ip_forward=1",
        )
    registry = looked.measured.registry_address
    if registry is not None:
        local = registry == "127.0.0.1"
        yield NodeCheck(
            "registry_host",
            "chutes",
            None,
            local,
            reason="" if local else f"the registry's name leads to {registry}",
            remedy="" if local else "point <validator>.localregistry.chutes.ai to 127.0.0.1",
        )


def _identity(looked: Looked) -> Iterator[NodeCheck]:
    if looked.uids is None or not looked.serves("chutes"):
        return
    one = looked.uids == 1
    yield NodeCheck(
        "one_uid",
        "chutes",
        None,
        one,
        measured=float(looked.uids),
        needed=1.0,
        unit="uids",
        reason="" if one else f"{looked.uids} hotkeys of this coldkey are registered",
        remedy="" if one else "register exactly one: only the best of a coldkey is paid",
    )


RULES: Final = (
    _address,
    _ports,
    _private_network,
    _identity,
)
