"""`windrow node import`: nodes as other tools declare them."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from windrow import WindrowError
from windrow.engine.fleet.inventory import MAX_BYTES
from windrow.networks.chutes.add_node import from_add_node
from windrow.networks.chutes.ansible import from_ansible, read_inventory
from windrow.networks.foreign import node_name
from windrow.networks.gonka.node_config import from_node_config, unwrapped
from windrow.networks.gonka.strict_registration import inventory_findings
from windrow.pipelines.commands.printing import cell
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.inventory_file import FleetFile

MOST_LINES: Final = 100
_AGENT = re.compile(
    r"(?P<node>[^=]{1,200})=(?P<hotkey>[A-Za-z0-9]+):(?P<key>[0-9a-f]{64})(:(?P<port>\d{1,5}))?"
)


class CannotImport(WindrowError):
    """A file of another tool that cannot be taken over."""


def import_nodes(
    out: Console,
    *,
    gonka: Path | None,
    chutes: str | None,
    ansible: Path | None,
    agents: Sequence[str],
    gpu_count: int | None,
) -> None:
    """Declare every node of one file, or none. Raises CannotImport, BadImport, InvalidFleet.

    A node that fleet.yaml has is joined: what it says is kept, and differences are printed.
    """
    if sum(given is not None for given in (gonka, chutes, ansible)) != 1:
        raise CannotImport("give one of --gonka FILE, --chutes 'add-node …' and --ansible FILE")
    if gpu_count is not None and chutes is None:
        raise CannotImport(
            "--gpu-count belongs to --chutes: other files count the cards themselves"
        )
    left: list[str] = []
    if gonka is not None:
        source = "node-config.json"
        document = _read(gonka, json.loads)
        found = from_node_config(document, left.append)
        left += _findings(document)
    elif ansible is not None:
        source = "the Ansible inventory"
        found = from_ansible(_read(ansible, read_inventory), left.append)
        left += _beside(ansible)
    else:
        source = "add-node"
        node = from_add_node(str(chutes), left.append)
        found = [node | {"gpu_count": gpu_count}]
    new = [_cleaned(node) for node in _with_agents(found, agents)]
    file = FleetFile(Settings.read().fleet)
    merged = file.merge(new, source)
    _tell(out, [*left, *merged.lines])
    by_name = {str(entry["name"]): entry for entry in merged.entries}
    names = [merged.renamed.get(str(node["name"]), str(node["name"])) for node in new]
    names = [_name_of(name, merged.entries) for name in names]
    if ansible is not None:
        without = [name for name in names if "gpu" not in by_name[name]]
        _tell(out, [f"{name}: no card is declared, so it counts as a CPU node; import its add-node "
                    "command if it has cards" for name in without])  # fmt: skip
    out.print(
        f"{len(names)} nodes are declared in {file.path}: {', '.join(names)}",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip


def _name_of(name: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """A node's name in fleet.yaml, be it found by its name or by its id in Gonka's registry."""
    if any(entry["name"] == name for entry in entries):
        return name
    return next(
        str(entry["name"]) for entry in entries if node_name(entry.get("gonka_id") or "") == name
    )


def _findings(document: Any) -> list[str]:
    """What Gonka's own API would take without a word; it is declared all the same."""
    nodes, lines = unwrapped(document), []
    for node, found in zip(nodes, inventory_findings(nodes), strict=True):
        codes = sorted(found.errors) + [f"{code} (odd)" for code in sorted(found.warnings)]
        if codes:
            lines.append(f"{node['id']}: {', '.join(codes)}")
    return lines


def _beside(inventory: Path) -> list[str]:
    """Folders of variables that Ansible reads beside an inventory, and this does not."""
    return [
        f"{name}/ beside the inventory is not read; to have its variables too: ansible-inventory "
        f"-i {shlex.quote(str(inventory))} --list --yaml > all.yml"
        for name in ("group_vars", "host_vars")
        if (inventory.parent / name).is_dir()
    ]


def _tell(out: Console, lines: Sequence[str]) -> None:
    """One line each; they may have a stranger's words in them."""
    for line in lines[:MOST_LINES]:
        out.print(cell(line, most=1000), soft_wrap=True)
    if len(lines) > MOST_LINES:
        out.print(f"and {len(lines) - MOST_LINES} more lines like these", soft_wrap=True)


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise CannotImport(f"{path} has more than {MAX_BYTES} bytes")
        return parse(data.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CannotImport(f"{path} cannot be read: {str(error)[:300]}") from None


def _with_agents(found: Sequence[Mapping[str, Any]], agents: Sequence[str]) -> list[dict[str, Any]]:
    """The nodes with the agents that --agent names, by their own name or the other tool's."""
    ways: dict[str, dict[str, Any]] = {}
    for text in agents:
        name, way = _asked(text)
        ways[node_name(name)] = way
    strangers = ways.keys() - {node["name"] for node in found}
    if strangers:
        raise CannotImport(f"--agent names {', '.join(sorted(strangers))}, which is not imported")
    return [dict(node) | ways.get(node["name"], {}) for node in found]


def _asked(text: str) -> tuple[str, dict[str, Any]]:
    match = _AGENT.fullmatch(text)
    if match is None:
        raise CannotImport(
            f"--agent {text[:60]!r} is not NODE=HOTKEY:KEY[:PORT]; `windrow agent` prints both"
        )
    way: dict[str, Any] = {"agent_hotkey": match["hotkey"], "agent_key": match["key"]}
    if match["port"]:
        way["agent_port"] = int(match["port"])
    return match["node"], {"transport": "agent", **way}


def _cleaned(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if value not in (None, [], "")}
