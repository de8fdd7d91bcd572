"""What a preflight needs of the asker's side: who calls back, which ports lead to the node, and
what the networks' own chains say of the miner.
"""

import ipaddress
import random
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from windrow.assets.fleet.stage import Stage
from windrow.engine.fleet.inventory import Node
from windrow.engine.fleet.membership import NETUIDS, Membership
from windrow.engine.fleet.preflight_address import is_public, private_of
from windrow.engine.fleet.preflight_reach import (
    MAX_ANSWER,
    MOST_PEERS,
    MOST_PORTS,
    AskedReach,
    challenge,
    parse,
)
from windrow.networks.chutes.node_resources import MAIN_VALIDATOR, registry_host
from windrow.networks.chutes.ports import NODE_PORTS
from windrow.resources.chain import Chain, ChainError
from windrow.resources.fleet.callback import Callback, CallbackTaken, Question
from windrow.resources.fleet.reach import accepting, own_address, probe

ROUNDS: Final = 3
PROBE_SECONDS: Final = 8.0
NODE_PORT_SAMPLE: Final = 6


@dataclass(frozen=True)
class _Plan:
    """What a node is asked to reach, and why not everything."""

    ports: tuple[int, ...]
    peers: tuple[str, ...]
    registry: str | None
    not_called: str
    not_probed: str


def outside(step: Stage) -> dict[str, Any]:
    """The fields of `Looked` that the network around the node gives. Raises NodeError."""
    node, fleet = step.node, step.fleet
    plan = _planned(step)
    found: dict[str, Any] = {"not_probed": plan.not_probed, "peers": plan.peers}
    with ExitStack() as stack:
        question: Question | None = None
        not_called = plan.not_called
        if not not_called and fleet.callback is not None:
            try:
                question = stack.enter_context(
                    fleet.callback.question(ROUNDS, fleet.work.look_seconds)
                )
            except CallbackTaken as error:
                not_called = str(error)
        key = secrets.token_bytes(32)
        asked = AskedReach(
            callbacks=question.urls if question else (),
            round=len(fleet.callback.urls) if question and fleet.callback else 1,
            pause=fleet.work.callback_pause,
            registry=plan.registry,
            peers=plan.peers,
            ports=plan.ports,
            key=key.hex(),
            seconds=PROBE_SECONDS + 1.0,
            address=node.public_address,
        )
        found["not_called"] = not_called
        if (target := _outer_address(node)) is not None:
            found["probed_private"] = _tried(node, target, fleet.callback)
            found["exposed"] = accepting(target, found["probed_private"])
        if not (asked.callbacks or asked.ports or asked.peers or asked.registry):
            return found
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(
                step.ask,
                "preflight",
                challenge(asked),
                max_bytes=MAX_ANSWER,
                seconds=fleet.work.look_seconds,
            )
            address = node.public_address or ""
            found["probes"] = probe(
                address, plan.ports, key, seconds=PROBE_SECONDS, ended=asking.done
            )
            reached = parse(asking.result().body, asked)
        if question is not None:
            found["arrivals"] = question.arrivals(address, reached.callbacks)
    return found | {"reached": reached}


def _planned(step: Stage) -> _Plan:
    node, callback = step.node, step.fleet.callback
    others = step.fleet.fleet().nodes.values()
    chutes = "chutes" in node.networks
    addresses = [
        other.wireguard_address
        for other in others
        if other.wireguard_address and other.name != node.name
    ]
    not_probed = _unprobed(node)
    return _Plan(
        ports=() if not_probed or node.public_address is None else _ports(node),
        peers=tuple(_some(addresses, MOST_PEERS)) if node.wireguard_address else (),
        registry=registry_host(MAIN_VALIDATOR) if chutes else None,
        not_called=_uncalled(node, callback),
        not_probed=not_probed,
    )


def _uncalled(node: Node, callback: Callback | None) -> str:
    """Why the node is not asked where it comes from; empty where it is."""
    if not {"chutes", "compute-subnet"} & set(node.networks):
        return "none of its networks asks"
    if node.public_address is None:
        return "fleet.yaml declares no public_address to hold it against"
    if callback is None:
        return "WINDROW_CALLBACK does not say where nodes reach this machine"
    if node.transport == "local" or node.public_address in callback.hosts:
        return "the node is the machine that asks, and what it says to itself does not leave it"
    return ""


def _unprobed(node: Node) -> str:
    """Why ports of the node's address are not tried; empty where they are, or there are none."""
    if node.public_address is None:
        return ""
    if node.transport == "local":
        return "the node is the machine that asks, which sees nothing from outside"
    if node.transport == "kubernetes":
        return "the node is asked through a pod, whose ports are not the node's"
    return ""


def _ports(node: Node) -> tuple[int, ...]:
    """The public ports, and for Chutes both ends of its range and some between (§12.7)."""
    ports = set(_some(node.public_ports, MOST_PORTS - NODE_PORT_SAMPLE - 2))
    if "chutes" in node.networks:
        private = private_of(node)
        between = [port for port in NODE_PORTS[1:-1] if port not in private]
        ports |= {NODE_PORTS[0], NODE_PORTS[-1], *_some(between, NODE_PORT_SAMPLE)}
    return tuple(sorted(ports))


def _outer_address(node: Node) -> str | None:
    """Where the internet finds a node; None where this machine cannot see that from outside."""
    if node.transport == "local":
        return None
    return node.public_address or (node.host if is_public(node.host) else None)


def _tried(node: Node, address: str, callback: Callback | None) -> frozenset[int]:
    """The private ports that this machine may not reach, so that reaching one shows it is open."""
    mine = {own_address(address), *(callback.hosts if callback else ())}
    admitted = {
        entry.port
        for entry in node.private_ports
        if any(_is_address(address) and entry.admits(address) for address in mine)
    }
    return frozenset(private_of(node).keys() - admitted)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _some(values: Sequence[Any], most: int) -> list[Any]:
    """All of them, or an unpredictable random sample of them."""
    return list(values) if len(values) <= most else random.SystemRandom().sample(values, most)


def members(node: Node, chain: Chain, hotkey: str) -> dict[str, Membership | str]:
    """By network of the node, what its subnet says of the miner, or why nobody knows."""
    found: dict[str, Membership | str] = {}
    for network in node.networks:
        if network in NETUIDS:
            try:
                found[network] = chain.membership(NETUIDS[network], hotkey)
            except ChainError as error:
                found[network] = str(error)
    return found
