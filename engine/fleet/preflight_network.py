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
from windrow.networks.chutes.node_resources import MAIN_VALIDATOR, registry_host

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
        remedy=""
        if not wrong
        else "Choose another wireguard.cidr, or another private network, before the cluster is "
        "installed. A later change means to install microk8s again",
    )
    joined = own.startswith(JOINED)
    yield NodeCheck(
        "wireguard_address",
        "chutes",
        None,
        joined,
        reason="" if joined else f"the playbook joins addresses of 192.168/16 only, not {own}",
        remedy=""
        if joined
        else "Set wireguard.cidr to a part of 192.168.0.0/16 before the cluster is installed",
    )
    if looked.node.wireguard_primary:
        forwards = looked.measured.ip_forward is True
        yield NodeCheck(
            "ip_forward",
            "chutes",
            None,
            forwards,
            reason="" if forwards else "the primary does not forward packets",
            remedy=""
            if forwards
            else "echo net.ipv4.ip_forward=1 | sudo tee /etc/sysctl.d/99-ip-forward.conf && "
            "sudo sysctl -p /etc/sysctl.d/99-ip-forward.conf",
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
        remedy=""
        if not gone
        else "sudo wg show lists when each peer was last heard. Open UDP port 51820 of the "
        "primary, and start WireGuard where it does not run: sudo systemctl start wg-quick@wg0",
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
        remedy=""
        if local
        else f"echo 127.0.0.1 {registry_host(MAIN_VALIDATOR)} | sudo tee -a /etc/hosts. Remove "
        "other lines with this name from /etc/hosts",
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
        else "microk8s kubectl -n chutes get pods must list the registry as Running. Status 401: "
        "its hotkey is not the registered one",
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
                    remedy="Set WINDROW_CHAIN=bittensor and WINDROW_NETWORK=finney",
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
        remedy="" if there else f"btcli subnet register --netuid {found.netuid}. This costs TAO",
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
        remedy="" if one else "Register exactly one hotkey of the coldkey: only the best is paid",
    )
    yield NodeCheck(
        "no_axon",
        "chutes",
        None,
        found.axon is None,
        reason="" if found.axon is None else f"an axon is announced at {found.axon}",
        remedy=""
        if found.axon is None
        else "Announce 0.0.0.0:0 for the hotkey: the network does not use an axon",
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
        else "If it has served for a day, ask the validator whether the hotkey is on its blacklist",
    )


RULES: Final = (
    _private_network,
    _peers,
    _registry,
    _identity,
)
