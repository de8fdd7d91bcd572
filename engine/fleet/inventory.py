"""What an operator says of the fleet: `fleet.yaml`, read whole or refused, every fault named."""

import ipaddress
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from windrow import WindrowError
from windrow.engine.fleet.checks import NETWORKS, WINDROW
from windrow.engine.fleet.ports import split_legacy, wrongly_public
from windrow.networks.bounded_yaml import Loader, UnboundedYaml, refuse_unbounded
from windrow.networks.chutes.gpus import CARDS
from windrow.networks.compute_horde.classes import CLASSES
from windrow.networks.signatures import is_hotkey

MAX_BYTES: Final = 1 << 20
MAX_NODES: Final = 10_000
AGENT_PORT: Final = 8790

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A node's name: a label of a host name, so that Kubernetes and Ansible know it by the same."""

HARDWARE_CLASSES: Final = tuple(CLASSES)
"""ComputeHorde's executor classes (compute-horde §2)."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,45}")
_CARD = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")

Port = Annotated[int, Field(ge=1, le=65535)]


class InvalidFleet(WindrowError):
    """An inventory that cannot be used; `faults` names everything that is wrong with it."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        super().__init__(
            f"{where} cannot be used: {'; '.join(faults[:20])}"
            f"{f'; and {len(faults) - 20} more' if len(faults) > 20 else ''}. Nothing of it was "
            "taken. Correct it and try again"
        )
        self.faults = tuple(faults)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, str_max_length=1000)


class Model(_Strict):
    """A model a node serves, and the arguments of the server that does."""

    name: Annotated[str, Field(min_length=1)]
    args: Annotated[tuple[str, ...], Field(max_length=200, strict=False)] = ()


class PrivatePort(_Strict):
    """A port that must be closed to the internet.

    reachable_by: addresses and networks that may reach it; empty: this machine alone.
    """

    port: Port
    reachable_by: Annotated[tuple[str, ...], Field(max_length=100, strict=False)] = ()

    @field_validator("reachable_by")
    @classmethod
    def _ranges(cls, ranges: tuple[str, ...]) -> tuple[str, ...]:
        for text in ranges:
            if ipaddress.ip_network(text, strict=False).prefixlen == 0:
                raise ValueError(f"{text} is everyone; a private port is reachable by some")
        return ranges

    def admits(self, address: str) -> bool:
        """Whether an address may reach the port."""
        found = ipaddress.ip_address(address)
        return any(found in ipaddress.ip_network(text, strict=False) for text in self.reachable_by)


class Node(_Strict):
    """One machine.

    host: name or address it is reached at. gpu: the card, None without GPUs: Chutes' short
    reference, or for a card outside Chutes' table the words of its product name, as `b300`.
    public_ports: must be free or reachable from the internet. private_ports: must be closed to it;
    a plain number is a port that this machine alone may reach. `ports` is the old name of
    public_ports: of it, `engine.fleet.ports.split_legacy` makes the two lists.
    gonka_id: id in Gonka's registry, the node's own name by default.
    hourly_cost: US dollars per GPU and hour (per machine without GPUs). transport: how it is asked.
    agent_hotkey: SS58 address the node's agent answers for; agent_key: the public key it signs its
    answers with, 64 hex digits; both needed for agents (`windrow agent` prints them). agent_tls:
    path, on the machine that asks, of the PEM certificate the agent answers with; None without TLS.
    kubernetes_node: name of the node in the cluster, the node's own by default.
    """

    name: str
    host: str = "127.0.0.1"
    transport: Literal["local", "agent", "kubernetes"] = "agent"
    agent_port: Port = AGENT_PORT
    agent_hotkey: str | None = None
    agent_key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    agent_tls: str | None = None
    kubernetes_node: str | None = None
    networks: Annotated[tuple[str, ...], Field(max_length=16, strict=False)] = ()
    gpu: str | None = None
    gpu_count: Annotated[int, Field(ge=0, le=16)] = 0
    hourly_cost: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False, strict=False)] = 0.0
    hardware_class: str | None = None
    models: Annotated[tuple[Model, ...], Field(max_length=64, strict=False)] = ()
    public_address: str | None = None
    wireguard_address: str | None = None
    wireguard_primary: bool = False
    public_ports: Annotated[tuple[Port, ...], Field(max_length=1000, strict=False)] = ()
    private_ports: Annotated[tuple[PrivatePort, ...], Field(max_length=1000, strict=False)] = ()
    gonka_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _two_lists(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        private = fields.get("private_ports")
        if isinstance(private, list | tuple):
            listed = [{"port": port} if isinstance(port, int) else port for port in private]
            fields = fields | {"private_ports": listed}
        if "ports" not in fields:
            return fields
        if "public_ports" in fields:
            raise ValueError("`ports` is the old name of `public_ports`: remove it")
        return split_legacy(fields)

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: use a-z, 0-9 and '-', at most 63 of them")
        return name

    @field_validator("agent_hotkey")
    @classmethod
    def _hotkey(cls, hotkey: str | None) -> str | None:
        if hotkey is not None and not is_hotkey(hotkey):
            raise ValueError(f"{hotkey[:80]!r} is not an SS58 address, or its checksum is wrong")
        return hotkey

    @field_validator("host")
    @classmethod
    def _host(cls, host: str) -> str:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is neither a host name nor an address, without a scheme")
        return host

    @field_validator("networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        known = [name for name in NETWORKS if name != WINDROW]
        for name in networks:
            if name not in known:
                raise ValueError(f"{name!r} is no network; there are {', '.join(known)}")
        return tuple(name for name in known if name in networks)

    @field_validator("gpu")
    @classmethod
    def _gpu(cls, gpu: str | None) -> str | None:
        if gpu is not None and not _CARD.fullmatch(gpu):
            raise ValueError(
                f"{gpu[:80]!r} does not name a card: use one of {', '.join(CARDS)}, or for another "
                "card the words of its product name in a-z, 0-9, '_' and '-', as b300"
            )
        return gpu

    @field_validator("hardware_class")
    @classmethod
    def _class(cls, name: str | None) -> str | None:
        if name is not None and name not in HARDWARE_CLASSES:
            raise ValueError(f"{name!r} is no class; there are {', '.join(HARDWARE_CLASSES)}")
        return name

    @field_validator("public_address", "wireguard_address")
    @classmethod
    def _address(cls, address: str | None) -> str | None:
        if address is not None:
            ipaddress.ip_address(address)
        return address

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.gpu is None) != (self.gpu_count == 0):
            raise ValueError("gpu and gpu_count go together: name the card and how many there are")
        if self.gpu is not None and self.gpu not in CARDS and "chutes" in self.networks:
            raise ValueError(
                f"Chutes' table has no card {self.gpu!r}; it has {', '.join(CARDS)}. A node with "
                "another card can serve the other networks"
            )
        for port, use in wrongly_public(self.networks, self.public_ports).items():
            raise ValueError(
                f"port {port} ({use}) must be closed to the internet: move it from public_ports "
                "to private_ports, and name in reachable_by who may reach it"
            )
        if self.transport == "agent" and None in (self.agent_hotkey, self.agent_key):
            raise ValueError(
                "a node with an agent needs agent_hotkey and agent_key; `windrow agent` prints them"
            )
        return self


class WireGuard(_Strict):
    """The private network of the fleet, and the ranges it must not overlap."""

    cidr: str = "192.168.0.0/20"
    pods: str = "10.1.0.0/16"
    services: str = "10.152.183.0/24"
    containers: str = "172.17.0.0/16"

    def ranges(self) -> dict[str, ipaddress.IPv4Network]:
        """Every range by what it is for. Raises ValueError."""
        return {name: ipaddress.IPv4Network(value) for name, value in self.model_dump().items()}


class _Document(_Strict):
    nodes: Annotated[tuple[Node, ...], Field(max_length=MAX_NODES, strict=False)]
    wireguard: WireGuard = WireGuard()

    @field_validator("nodes", mode="before")
    @classmethod
    def _none_yet(cls, value: object) -> object:
        """`nodes:` with nothing below it declares no nodes."""
        return () if value is None else value


@dataclass(frozen=True)
class Fleet:
    """Every node by its name, and the fleet's private network."""

    nodes: dict[str, Node]
    wireguard: WireGuard

    def node(self, name: str) -> Node:
        """A node. Raises UnknownNode."""
        if name not in self.nodes:
            known = ", ".join(self.nodes) or "none"
            raise UnknownNode(f"the fleet has no node {name[:80]!r}; it has {known[:500]}")
        return self.nodes[name]


class NodeExists(WindrowError):
    """A node of this name is declared already."""


class UnknownNode(WindrowError):
    """A node that the inventory does not name."""


def parse_fleet(text: str, where: str = "fleet.yaml") -> Fleet:
    """A fleet from YAML; every fault is named at once. Raises InvalidFleet."""
    document = safe_yaml(text, where)
    try:
        found = _Document.model_validate(document)
    except ValidationError as error:
        raise InvalidFleet(where, [_fault(entry, document) for entry in error.errors()]) from None
    faults = fleet_faults(found.nodes, found.wireguard)
    if faults:
        raise InvalidFleet(where, faults)
    return Fleet({node.name: node for node in found.nodes}, found.wireguard)


def safe_yaml(text: str, where: str) -> Any:
    """What a YAML text says: plain data, no tags, no anchors, bounded. Raises InvalidFleet."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise InvalidFleet(where, [f"it has more than {MAX_BYTES} bytes"])
    try:
        refuse_unbounded(text, aliases=False)
        return yaml.load(text, Loader)  # noqa: S506 - a safe loader: plain data and no tags
    except UnboundedYaml as error:
        raise InvalidFleet(where, [str(error)]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidFleet(where, [f"it is no YAML: {str(error)[:300]}"]) from None


def fleet_faults(nodes: Sequence[Node], wireguard: WireGuard) -> list[str]:
    """What is wrong with the nodes together: names, addresses, ports, ranges."""
    faults = _repeated("the name {} is there {} times", [node.name for node in nodes])
    faults += _repeated(
        "the agent {} is declared {} times",
        [f"{node.host}:{node.agent_port}" for node in nodes if node.transport == "agent"],
    )
    public = [address for node in nodes if (address := node.public_address)]
    faults += _repeated("the public address {} is there {} times", public)
    for node in nodes:
        ports = [*node.public_ports, *(private.port for private in node.private_ports)]
        faults += _repeated(f"node {node.name}: the port {{}} is there {{}} times", ports)
    faults += _repeated("the WireGuard address {} is there {} times", _wireguard_of(nodes))
    return faults + _range_faults(nodes, wireguard)


def _range_faults(nodes: Sequence[Node], wireguard: WireGuard) -> list[str]:
    try:
        ranges = wireguard.ranges()
    except ValueError as error:
        return [f"wireguard: {error}"]
    names = list(ranges)
    faults = [
        f"wireguard: {first} {ranges[first]} overlaps {second} {ranges[second]}"
        for index, first in enumerate(names)
        for second in names[index + 1 :]
        if ranges[first].overlaps(ranges[second])
    ]
    faults += [
        f"node {node.name}: {node.wireguard_address} is not in {ranges['cidr']}"
        for node in nodes
        if node.wireguard_address
        and ipaddress.ip_address(node.wireguard_address) not in ranges["cidr"]
    ]
    primaries = sum(node.wireguard_primary for node in nodes)
    if _wireguard_of(nodes) and primaries != 1:
        faults.append(f"wireguard: {primaries} nodes are its primary; exactly one must be")
    return faults


def _wireguard_of(nodes: Sequence[Node]) -> list[str]:
    return [node.wireguard_address for node in nodes if node.wireguard_address]


def _repeated(text: str, values: Sequence[object]) -> list[str]:
    return [text.format(value, n) for value, n in Counter(values).items() if n > 1]


def _fault(entry: Any, document: Any) -> str:
    """One finding of pydantic, with the node's name where it has one."""
    path = list(entry["loc"])
    place = ".".join(str(step) for step in path) or "the document"
    if path[:1] == ["nodes"] and len(path) > 1 and isinstance(path[1], int):
        node = document["nodes"][path[1]]
        name = node.get("name") if isinstance(node, dict) else None
        rest = ".".join(str(step) for step in path[2:])
        place = f"node {name or path[1]}{': ' + rest if rest else ''}"
    return f"{place}: {entry['msg'].removeprefix('Value error, ')}"
