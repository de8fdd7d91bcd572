"""Gonka's `node-config.json` and the answer of `GET /admin/v1/nodes` (§2.3, §4.2)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from windrow.networks.chutes.gpus import card_of
from windrow.networks.foreign import BadImport, Say, ignore, name_faults, node_name, quoted
from windrow.networks.foreign import whole_number as _whole

MAX_NODES: Final = 10_000
_TAKEN: Final = frozenset({"id", "host", "base_url", "inference_port", "poc_port", "models"})
_OF_THE_REGISTRY: Final = frozenset({"node_num"})
_PRODUCT: Final = re.compile(r"(nvidia|amd|tesla|geforce)\b", re.IGNORECASE)
_VENDOR: Final = re.compile(r"\b(nvidia|amd|tesla|geforce)\b", re.IGNORECASE)


class BadNodeConfig(BadImport):
    """A node-config.json that is not a list of nodes, or has a node that no host could use."""


def unwrapped(document: Any) -> list[Any]:
    """The nodes' own objects, be they a file's or wrapped by the admin API. Raises BadNodeConfig.

    Keys are compared as the network compares them, without regard to case, and null is no value.
    """
    if not isinstance(document, list):
        raise BadNodeConfig(
            "The Gonka inventory",
            ["it is not a list of nodes; give node-config.json as it is, or the answer of "
             "GET /admin/v1/nodes"],
        )  # fmt: skip
    if len(document) > MAX_NODES:
        raise BadNodeConfig("The Gonka inventory", [f"it has more than {MAX_NODES} nodes"])
    return [_folded(_inner(entry)) for entry in document]


def from_node_config(document: Any, say: Say = ignore) -> list[dict[str, Any]]:
    """Nodes of a node-config.json, or of the admin API's answer, as fields of fleet.yaml.

    Of each: name, gonka_id where the name is another, host, models with their arguments, the
    card and how many of it where `hardware` names one, and the ports, which are private.
    Raises BadNodeConfig with every fault.
    """
    faults: list[str] = []
    nodes: list[dict[str, Any]] = []
    for index, entry in enumerate(unwrapped(document)):
        if not isinstance(entry, dict):
            faults.append(f"entry {index} is not an object")
            continue
        name = entry.get("id")
        if not isinstance(name, str) or not name.strip() or len(name) > 200:
            faults.append(f"entry {index} has no id, a text of at most 200 characters")
            continue
        wrong = list(_faults(entry))
        faults += [f"node {quoted(name)}: {fault}" for fault in wrong]
        if not wrong:
            nodes.append(_node(name, entry, say))
    faults += name_faults("node", [node.get("gonka_id", node["name"]) for node in nodes])
    if faults:
        raise BadNodeConfig("The Gonka inventory", faults)
    return nodes


def _inner(entry: Any) -> Any:
    """A node of the admin API is beside its state."""
    inner = _folded(entry)
    wrapped = isinstance(inner, dict) and isinstance(inner.get("node"), dict) and "id" not in inner
    return inner["node"] if wrapped else entry


def _folded(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {str(key).lower(): value for key, value in entry.items()}


def _faults(entry: Mapping[str, Any]) -> Iterator[str]:
    if "models" not in entry:
        yield "it has no models by name"
    yield from _endpoint_faults(entry)
    models = entry.get("models")
    if models is not None and not isinstance(models, dict):
        yield "its models are not an object, model by name"
        return
    for model, body in (models or {}).items():
        if not model:
            yield "a model has no name"
        if body is not None and not isinstance(body, dict):
            yield f"model {quoted(model)} is not an object with args"
            continue
        args = (body or {}).get("args")
        if args is not None and not isinstance(args, list):
            yield f"the args of model {quoted(model)} are not a list"
        for place, arg in enumerate(args if isinstance(args, list) else ()):
            if not isinstance(arg, str):
                yield f"args[{place}] of model {quoted(model)} is not a text; put it in quotes"
    hardware = entry.get("hardware")
    if hardware is not None and not isinstance(hardware, list):
        yield "its hardware is not a list of type and count"
        return
    for place, card in enumerate(hardware or ()):
        if not isinstance(card, dict):
            yield f"hardware[{place}] is not an object with type and count"
        elif not isinstance(card.get("type") or "", str):
            yield f"hardware[{place}].type is not a text"
        elif not _whole(card.get("count") or 0, 0, 2**32 - 1):
            yield f"hardware[{place}].count is not a whole number"


def _endpoint_faults(entry: Mapping[str, Any]) -> Iterator[str]:
    host, url = entry.get("host"), entry.get("base_url")
    for key in ("host", "base_url"):
        if not isinstance(entry.get(key) or "", str):
            yield f"{key} is not a text"
            return
    for key in ("inference_port", "poc_port"):
        port = entry.get(key)
        if port is not None and not _whole(port, 0, 65535):
            yield f"{key} is not a port, a whole number from 1 to 65535"
    if host and url:
        yield "it has both host and base_url; the network takes exactly one of them"
    if host and ("://" in host or "/" in host):
        yield "host has a scheme or a path; write the bare name or address, or use base_url"
    elif host and re.fullmatch(r"[^:]*:[0-9]+", host):
        yield "host has a port; write it in inference_port and poc_port"
    if url and _host_of(url) is None:
        yield "base_url is not an http or https address with a host"


def _host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        return None


def _node(name: str, entry: Mapping[str, Any], say: Say) -> dict[str, Any]:
    mine = node_name(name)
    node: dict[str, Any] = {"name": mine}
    if mine != name:
        node["gonka_id"] = name
    url = entry.get("base_url")
    host = _host_of(url) if url else entry.get("host")
    if host:
        node["host"] = host
    node["networks"] = ["gonka"]
    node["models"] = [
        {"name": model, "args": list((body or {}).get("args") or ())}
        for model, body in (entry.get("models") or {}).items()
    ]
    if url:
        say(f"{mine}: of base_url only the host is taken, not its port or path")
    else:
        ports = (entry.get("inference_port"), entry.get("poc_port"))
        node["private_ports"] = [{"port": port} for port in dict.fromkeys(ports) if port]
    node |= _cards(mine, entry.get("hardware") or (), say)
    for model, body in (entry.get("models") or {}).items():
        for key in sorted(set(body or {}) - {"args"}):
            say(f"{mine}: {quoted(key)} of model {quoted(model)} is not taken")
    left = {key for key, value in entry.items() if value not in (None, "", [], {}, 0)}
    for key in sorted(left - _TAKEN - _OF_THE_REGISTRY - {"hardware"}):
        say(f"{mine}: {quoted(key)} is not taken: fleet.yaml has no field for it")
    return node


def _cards(name: str, hardware: Any, say: Say) -> dict[str, Any]:
    """The card and how many, where all entries are of one kind; `type` is free text (§2.3)."""
    kinds: dict[str, int] = {}
    for entry in hardware:
        # R26 writes the product name, and after a bar the memory.
        kind = (entry.get("type") or "").partition("|")[0].strip()
        kinds[kind] = kinds.get(kind, 0) + (entry.get("count") or 0)
    if not kinds:
        return {}
    if len(kinds) > 1:
        say(f"{name}: hardware is not taken: it names {len(kinds)} kinds of card, a node has one")
        return {}
    ((kind, count),) = kinds.items()
    gpu = _short(kind)
    if gpu is None or not 1 <= count <= 16:
        why = "names no product" if gpu is None else f"counts {count} cards, not 1 to 16"
        say(f"{name}: hardware is not taken: it {why}; set gpu and gpu_count in fleet.yaml")
        return {}
    return {"gpu": gpu, "gpu_count": count}


def _short(kind: str) -> str | None:
    """A card's short reference; for one outside the table the words of its product name."""
    card = card_of(kind)
    if card is not None:
        return card.short_ref
    if not _PRODUCT.match(kind):
        return None
    words = re.sub(r"[^a-z0-9]+", "_", _VENDOR.sub(" ", kind).lower()).strip("_")
    return words[:64].strip("_") or None
