"""`windrow node import`: nodes as other tools declare them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from windrow import WindrowError
from windrow.engine.fleet.inventory import MAX_BYTES, InvalidFleet, parse_fleet, safe_yaml
from windrow.networks.chutes.add_node import from_add_node, from_ansible
from windrow.networks.gonka.node_config import from_node_config
from windrow.networks.gonka.strict_registration import inventory_findings
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.inventory_file import FleetFile

_AGENT = re.compile(
    r"(?P<node>[a-z0-9-]+)=(?P<hotkey>[A-Za-z0-9]+):(?P<key>[0-9a-f]{64})(:(?P<port>\d+))?"
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
    gpu_count: int,
) -> None:
    """Declare every node of one file, or none. Raises CannotImport, InvalidFleet."""
    if sum(given is not None for given in (gonka, chutes, ansible)) != 1:
        raise CannotImport("give one of --gonka FILE, --chutes 'add-node …' and --ansible FILE")
    if gonka is not None:
        document = _read(gonka, json.loads)
        found = from_node_config(document)
        _tell_findings(out, document)
    elif ansible is not None:
        found = from_ansible(_read(ansible, lambda text: safe_yaml(text, str(ansible))))
    else:
        found = [from_add_node(str(chutes)) | {"gpu_count": gpu_count}]
    asked = [_asked(agent) for agent in agents]
    strangers = {name for name, _ in asked} - {node["name"] for node in found}
    if strangers:
        raise CannotImport(f"--agent names {', '.join(sorted(strangers))}, which is not imported")
    ways = dict(asked)
    new = [_cleaned(node | ways.get(node["name"], {"transport": "kubernetes"})) for node in found]
    file = FleetFile(Settings.read().fleet)
    _try_all(file, new)
    for node in new:
        file.add(node)
    names = ", ".join(str(node["name"]) for node in new)
    out.print(f"{len(new)} nodes are declared in {file.path}: {names}", soft_wrap=True)


def _tell_findings(out: Console, document: Sequence[Mapping[str, Any]]) -> None:
    """What Gonka's own API would take without a word; it is declared all the same."""
    for node, found in zip(document, inventory_findings(document), strict=True):
        codes = sorted(found.errors) + [f"{code} (odd)" for code in sorted(found.warnings)]
        if codes:
            out.print(f"{node['id']}: {', '.join(codes)}", soft_wrap=True, markup=False)


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise CannotImport(f"{path} has more than {MAX_BYTES} bytes")
        return parse(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise CannotImport(f"{path} cannot be read: {str(error)[:300]}") from None


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


def _try_all(file: FleetFile, new: Sequence[Mapping[str, Any]]) -> None:
    """All of them with those there are, before anything is written. Raises InvalidFleet."""
    fleet = file.load()
    there = [node.model_dump(mode="json", exclude_none=True) for node in fleet.nodes.values()]
    document = {"nodes": [*there, *new], "wireguard": fleet.wireguard.model_dump()}
    try:
        parse_fleet(json.dumps(document), str(file.path))
    except InvalidFleet as error:
        raise InvalidFleet(f"{file.path} with these nodes", error.faults) from None
