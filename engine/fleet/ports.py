"""Which ports of a node are public and which are private, by its networks' rules."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from windrow.networks.chutes import ports as chutes
from windrow.networks.gonka import ports as gonka

PRIVATE_OF: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {"gonka": gonka.PRIVATE, "chutes": chutes.PRIVATE}
)
"""By network, the ports that it calls private and what listens there."""

RISKY: Final[Mapping[int, str]] = MappingProxyType(
    {2375: "Docker without TLS", 8000: "the usual port of model servers"}
)
"""Ports that give a machine or its work away. A node may declare them public."""

NEVER_OPENED: Final = frozenset(
    {port for ports in PRIVATE_OF.values() for port in ports} | {gonka.P2P, 2375}
)
"""Ports for which no remedy has a command that opens them: on some machine they are private."""


def wrongly_public(networks: Collection[str], public: Iterable[int]) -> dict[int, str]:
    """The ports of `public` that one of the networks calls private, and what listens there."""
    private = _private_of(networks)
    return {port: private[port] for port in public if port in private}


def private_ports(
    networks: Collection[str], public: Collection[int], private: Collection[int]
) -> dict[int, str]:
    """Ports that must be closed to the internet, and what they are for.

    public, private: as the node declares them. A port that a network of another machine calls
    private is checked too, unless the node declares it public.
    """
    known = {port: use for ports in (*PRIVATE_OF.values(), RISKY) for port, use in ports.items()}
    found = {port: use for port, use in known.items() if port not in public}
    found |= _private_of(networks)
    return found | {port: found.get(port, "declared private") for port in private}


def split_legacy(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A declaration whose `ports` become `public_ports` and `private_ports`.

    Of a Gonka node only ports that Gonka calls public stay public, and NodePorts of a node that
    serves Chutes too; of another node all but those that its networks call private.
    """
    rest = {name: value for name, value in fields.items() if name != "ports"}
    ports, networks = fields["ports"], fields.get("networks") or ()
    declared = rest.get("private_ports") or ()
    if not all(isinstance(listed, list | tuple) for listed in (ports, networks, declared)):
        return rest | {"public_ports": ports}  # the declaration is refused for its types
    there = [entry.get("port") if isinstance(entry, dict) else entry for entry in declared]
    left = [port for port in ports if port not in there]
    private = [port for port in left if not _is_public(port, networks, ports)]
    public = [port for port in left if port not in private]
    added = [{"port": port} for port in private]
    return rest | {"public_ports": public, "private_ports": [*declared, *added]}


def _is_public(port: Any, networks: Collection[Any], ports: Collection[Any]) -> bool:
    if not isinstance(port, int):
        return True  # the declaration is refused for it
    if port in _private_of(networks):
        return False
    if "gonka" not in networks or port in gonka.PUBLIC_API:
        return True
    if port == gonka.P2P:  # beside the management port it is the inference port of an ML node
        return 8080 not in ports
    return "chutes" in networks and port in chutes.NODE_PORTS


def _private_of(networks: Collection[Any]) -> dict[int, str]:
    return {
        port: use
        for network, ports in PRIVATE_OF.items()
        if network in networks
        for port, use in ports.items()
    }
