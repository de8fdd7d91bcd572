"""Nodes that other tools declare, merged into those of fleet.yaml.

The result does not depend on the order of the imports. What fleet.yaml says already is kept, and
every difference is named. Nodes are mappings as fleet.yaml has them, so that what is not written
is known to be not written.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from windrow.engine.fleet.cards import is_same_card

Entry = dict[str, Any]

_LISTS: Final = {"networks": None, "models": "name", "private_ports": "port"}
"""Fields whose parts are joined, each by the part's key; None: the part itself."""
_CARD: Final = ("gpu", "gpu_count")
_AGENT: Final = ("agent_hotkey", "agent_key", "agent_port", "agent_tls")


@dataclass
class Merged:
    """Entries in the order of fleet.yaml, new ones last, and what became of the import.

    renamed: new name by old one. removed: entries that another one took in. lines: what was joined,
    kept, renamed or put in place of another value, in words. assumed: nodes with a gpu_count of 1
    that nobody said.
    """

    entries: list[Entry]
    renamed: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def merge(
    existing: Iterable[Mapping[str, Any]],
    imported: Sequence[Mapping[str, Any]],
    source: str,
    assumed: Callable[[str], bool] = lambda _name: False,
) -> Merged:
    """Existing entries with imported nodes among them.

    source: of the imported nodes, for the lines. assumed: whether the gpu_count of an existing
    entry is one that an import assumed.
    """
    merged = Merged([deepcopy(dict(entry)) for entry in existing])
    for node in imported:
        new = deepcopy(dict(node))
        alone = sum(_same_machine(new, other) for other in imported) == 1
        target = _by_name(merged.entries, new)
        others = [
            entry
            for entry in merged.entries
            if entry is not target and alone and _same_machine(entry, new)
            and _complement(entry, new, target)
        ]  # fmt: skip
        if len(others) > 1:
            merged.lines.append(
                f"{new['name']}: {len(others)} nodes have its address, so none was joined with it"
            )
        other = others[0] if len(others) == 1 else None
        if target is None and other is None:
            merged.entries.append({"name": new["name"], "transport": "kubernetes"} | new)
            _assume_count(merged, merged.entries[-1])
            continue
        if target is None and other is not None:
            target = other
            _take_name(merged, target, new)
        elif target is not None and other is not None:
            _absorb(merged, target, other, assumed)
        assert target is not None  # one of the two is there
        _join(merged, target, new, source, assumed)
        _assume_count(merged, target)
    return merged


def _assume_count(merged: Merged, entry: Entry) -> None:
    if entry.get("gpu") is not None and entry.get("gpu_count") is None:
        entry["gpu_count"] = 1
        merged.assumed.append(entry["name"])
        merged.lines.append(
            f"{entry['name']}: gpu_count is assumed to be 1: correct it in fleet.yaml, or give "
            "--gpu-count with add-node"
        )


def _by_name(entries: Iterable[Entry], new: Entry) -> Entry | None:
    for entry in entries:
        if "gonka_id" in new and entry.get("gonka_id") == new["gonka_id"]:
            return entry
    if _serves(new, "gonka"):
        for entry in entries:
            if entry.get("gonka_id") == new.get("gonka_id", new["name"]):
                return entry
    return next((entry for entry in entries if entry.get("name") == new["name"]), None)


def _complement(entry: Entry, new: Entry, target: Entry | None) -> bool:
    """Whether two nodes of one machine differ only in who named them: Gonka, or Chutes' tools."""
    if _serves(new, "chutes"):
        return _serves(entry, "gonka") and not _serves(entry, "chutes")
    return (
        target is None
        and _serves(entry, "chutes")
        and not _serves(entry, "gonka")
        and entry.get("gonka_id") is None
    )


def _take_name(merged: Merged, entry: Entry, new: Entry) -> None:
    """Give one machine the name that Chutes' tools have for it: the cluster knows it by that."""
    old, name = entry["name"], new["name"]
    if _serves(new, "gonka"):
        new["gonka_id"] = new.get("gonka_id", name)
        new["name"] = old
        merged.lines.append(
            f"{old}: Gonka knows it as {new['gonka_id']!a}; the address is the same"
        )
        return
    entry.setdefault("gonka_id", old)
    entry["name"] = name
    merged.renamed[old] = name
    merged.lines.append(
        f"{old} is renamed {name}: the address is the same. Its history stays under {old}. An "
        f"agent that was started with --node {old} must be restarted with --node {name}"
    )


def _absorb(merged: Merged, target: Entry, other: Entry, assumed: Callable[[str], bool]) -> None:
    """Join two entries of one machine, of which the second is named by Gonka's id."""
    name = other["name"]
    fields = {key: value for key, value in other.items() if key != "name"}
    fields.setdefault("gonka_id", name)
    merged.entries.remove(other)
    merged.removed.append(name)
    merged.lines.append(
        f"{name} is joined with {target['name']}: the address is the same. The history of {name} "
        "stays under its name"
    )
    _join(merged, target, fields, f"the entry {name}", assumed)


def _join(
    merged: Merged,
    entry: Entry,
    new: Mapping[str, Any],
    source: str,
    assumed: Callable[[str], bool],
) -> None:
    """Fill in what an entry does not say, and name what it says otherwise."""
    name = entry["name"]

    def differs(key: str, kept: Any, told: Any) -> None:
        merged.lines.append(f"{name}: {key} {kept!a} of fleet.yaml is kept; {source} has {told!a}")

    card = not _both(entry, new, "gpu") or _same_card(str(entry["gpu"]), str(new["gpu"]))
    for key, value in new.items():
        if value is None or key in ("name", "transport", "host", *_AGENT):
            continue
        if key in _LISTS:
            _join_list(entry, key, value, differs)
        elif key == "gpu_count" and not card:
            continue  # it counts other cards than the entry's
        elif entry.get(key) is None:
            entry[key] = value
        elif key == "gpu_count" and entry[key] != value and assumed(name):
            merged.lines.append(
                f"{name}: gpu_count is {value}, in place of the assumed {entry[key]}"
            )
            entry[key] = value
        elif entry[key] != value and not (key == "gpu" and card):
            differs(key, entry[key], value)
    _join_host(merged, entry, new, differs)
    _join_way(merged, entry, new, differs)


def _join_list(
    entry: Entry, key: str, parts: Iterable[Any], differs: Callable[[str, Any, Any], None]
) -> None:
    by = _LISTS[key]
    there = list(entry.get(key) or ())

    def key_of(part: Any) -> Any:
        return part.get(by) if by and isinstance(part, Mapping) else part

    mine = {key_of(part): part for part in there}
    for part in parts:
        if key_of(part) not in mine:
            there.append(part)
        elif key == "models":
            kept = mine[key_of(part)].get("args") or []
            if list(kept) != list(part.get("args") or []):
                differs(f"args of model {key_of(part)}", list(kept), list(part.get("args") or []))
    if there:
        entry[key] = there


def _join_host(
    merged: Merged, entry: Entry, new: Mapping[str, Any], differs: Callable[[str, Any, Any], None]
) -> None:
    """One machine has several addresses: that of the private network gives way to another."""
    host, told = entry.get("host"), new.get("host")
    if told is None or host == told:
        return
    if host is None:
        entry["host"] = told
    elif host == entry.get("wireguard_address") and not entry.get("agent_key"):
        entry["host"] = told
        merged.lines.append(
            f"{entry['name']}: host is {told}, in place of {host}, which is its wireguard_address"
        )
    elif told not in (entry.get("wireguard_address"), entry.get("public_address")):
        differs("host", host, told)


def _join_way(
    merged: Merged, entry: Entry, new: Mapping[str, Any], differs: Callable[[str, Any, Any], None]
) -> None:
    """How the node is asked: an agent that is named takes the place of the cluster."""
    if new.get("agent_key") is None:
        return
    if entry.get("agent_key") is None and entry.get("transport") == "kubernetes":
        entry["transport"] = "agent"
        entry |= {key: new[key] for key in _AGENT if new.get(key) is not None}
        merged.lines.append(f"{entry['name']}: transport is agent, in place of kubernetes")
        return
    if entry.get("agent_key") is None:
        differs("transport", entry.get("transport", "agent"), "agent")
        return
    for key in _AGENT:
        if new.get(key) is not None and entry.get(key) != new[key]:
            differs(key, entry.get(key), new[key])


def _same_card(one: str, other: str) -> bool:
    return is_same_card(one, other) or is_same_card(other, one)


def _both(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return one.get(key) is not None and other.get(key) is not None


def _serves(entry: Mapping[str, Any], network: str) -> bool:
    return network in (entry.get("networks") or ())


def _same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(_addresses(one) & _addresses(other))


def _addresses(entry: Mapping[str, Any]) -> set[str]:
    found = {str(entry.get(key) or "") for key in ("host", "public_address", "wireguard_address")}
    return {address.lower() for address in found if address and not _is_loopback(address)}


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address.lower() == "localhost"
