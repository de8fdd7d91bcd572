"""The fleet's private network around a machine, and who it is to the networks.

chutes §12.8-13 and §12.17.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.membership import Membership
from windrow.engine.fleet.preflight_looked import Looked
from windrow.engine.fleet.preflight_reach import REGISTRY_PORT

JOINED: Final = "192.168."
"""The playbook that joins nodes knows addresses with this beginning only (chutes §12.9)."""
_OWN: Final = ("wg", "cni", "cali", "vxlan")


def _private_network(looked: Looked) -> Iterator[NodeCheck]:
    """WireGuard takes all of 10/8 and its own range, Docker another one (chutes §12.9)."""
    own = looked.node.wireguard_address
    if own is None:
        return
    taken = [ipaddress.IPv4Network(looked.wireguard.cidr), ipaddress.IPv4Network("10.0.0.0/8")]
    docker = ipaddress.IPv4Network(looked.wireguard.containers)
    wrong = []
    for route in looked.measured.routes:
        network, _, interface = route.partition(" ")
        there = ipaddress.IPv4Network(network, strict=False)
        if not there.prefixlen or interface.startswith(_OWN):
            continue
        ranges = taken if interface.startswith(("docker", "br-")) else [*taken, docker]
        if any(there.overlaps(other) for other in ranges):
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
    joined = own.startswith(JOINED)
    yield NodeCheck(
        "wireguard_address",
        "chutes",
        None,
        joined,
        reason="" if joined else f"the playbook joins addresses of 192.168/16 only, not {own}",
        remedy="" if joined else "give the fleet a wireguard.cidr within 192.168.0.0/16",
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


def _peers(looked: Looked) -> Iterator[NodeCheck]:
    """Every other node is reached over WireGuard (chutes §12.8)."""
    if looked.reached is None or not looked.peers:
        return
    gone = sorted(set(looked.peers) - set(looked.reached.peers))
    yield NodeCheck(
        "peers_reachable",
        "chutes",
        None,
        not gone,
        measured=float(len(looked.peers) - len(gone)),
        needed=float(len(looked.peers)),
        unit="nodes",
        reason="" if not gone else f"{', '.join(gone[:8])} do not answer over WireGuard",
        remedy="" if not gone else "sudo wg show: open UDP 51820 on the primary, then wg-quick up",
    )


def _registry(looked: Looked) -> Iterator[NodeCheck]:
    """Images come through a proxy beside the node, which signs for it (chutes §12.17)."""
    if looked.reached is None or not looked.serves("chutes"):
        return
    found, status = looked.reached.registry_address, looked.reached.registry_status
    local = found == "127.0.0.1"
    yield NodeCheck(
        "registry_host",
        "chutes",
        None,
        local,
        reason="" if local else f"the registry's name leads to {found or 'nowhere'}",
        remedy="" if local else "point <validator>.localregistry.chutes.ai to 127.0.0.1",
    )
    answers = local and status == 200
    said = "nothing" if status is None else f"HTTP status {status}"
    yield NodeCheck(
        "registry_answers",
        "chutes",
        None,
        answers,
        measured=None if status is None else float(status),
        needed=200.0,
        unit="HTTP",
        reason="" if answers else f"the registry's proxy at port {REGISTRY_PORT} says {said}",
        remedy=""
        if answers
        else "kubectl -n chutes get pods: the registry must run; 401: wrong key",
    )


def _identity(looked: Looked) -> Iterator[NodeCheck]:
    """The miner's place on each network's own subnet (chutes §12.11-13)."""
    for network, found in looked.members.items():
        checks = ["hotkey_registered"]
        if network == "chutes":
            checks += ["one_uid", "no_axon", "incentive"]
        if isinstance(found, str):
            for check in checks:
                yield NodeCheck(
                    check,
                    network,
                    None,
                    None,
                    reason=f"not measured: {found}",
                    remedy="set WINDROW_CHAIN=bittensor and WINDROW_NETWORK=finney",
                )
            continue
        yield _registered(network, found)
        if network == "chutes":
            yield from _chutes_miner(found)


def _registered(network: str, found: Membership) -> NodeCheck:
    there = found.uid is not None
    return NodeCheck(
        "hotkey_registered",
        network,
        there,
        there,
        measured=None if found.uid is None else float(found.uid),
        unit="uid",
        reason="" if there else f"the hotkey is not registered on subnet {found.netuid}",
        remedy="" if there else f"btcli subnet register --netuid {found.netuid}",
    )


def _chutes_miner(found: Membership) -> Iterator[NodeCheck]:
    one = found.siblings == 1
    yield NodeCheck(
        "one_uid",
        "chutes",
        None,
        one,
        measured=float(found.siblings),
        needed=1.0,
        unit="uids",
        reason="" if one else f"{found.siblings} hotkeys of this coldkey are registered",
        remedy="" if one else "register exactly one: only the best of a coldkey is paid",
    )
    yield NodeCheck(
        "no_axon",
        "chutes",
        None,
        found.axon is None,
        reason="" if found.axon is None else f"an axon is announced at {found.axon}",
        remedy="" if found.axon is None else "serve 0.0.0.0:0 for the hotkey: nobody asks an axon",
    )
    earns = found.incentive > 0
    yield NodeCheck(
        "incentive",
        "chutes",
        None,
        True if earns else None,
        measured=found.incentive,
        unit="of all",
        reason="" if earns else "it earns nothing: so does a new miner, and one on a blacklist",
        remedy=""
        if earns
        else "if it has served for a day, ask the validator whether it is listed",
    )


RULES: Final = (
    _private_network,
    _peers,
    _registry,
    _identity,
)
