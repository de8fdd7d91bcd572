"""`chutes-miner add-node` as the guides write it, and the hosts of an Ansible inventory (§4.1)."""

import argparse
import shlex
from typing import Any, NoReturn

from windrow import WindrowError


class BadNodeImport(WindrowError):
    """A declaration in another tool's format that cannot be read."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadNodeImport(f"the add-node command cannot be read: {message}")


def from_add_node(command: str) -> dict[str, Any]:
    """What an add-node command declares: name, gpu, hourly_cost, validator. Raises BadNodeImport.

    The path of the hotkey file and the miner's API are read over: they are the CLI's own.
    """
    parser = _Parser(prog="add-node", add_help=False, exit_on_error=False)
    for flag in ("--name", "--validator", "--gpu-short-ref"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--hourly-cost", type=float, required=True)
    for flag in ("--hotkey", "--miner-api", "--agent-api"):
        parser.add_argument(flag)
    try:
        words = shlex.split(command.replace("\\\n", " "))
        start = words.index("add-node") + 1 if "add-node" in words else 0
        found = parser.parse_args(words[start:])
    except (ValueError, argparse.ArgumentError) as error:
        raise BadNodeImport(f"the add-node command cannot be read: {error}") from None
    return {
        "name": found.name,
        "gpu": found.gpu_short_ref,
        "hourly_cost": found.hourly_cost,
        "networks": ["chutes"],
    }


def from_ansible(inventory: Any) -> list[dict[str, Any]]:
    """The hosts of an Ansible inventory in YAML, wherever they are in its groups.

    Of each: name, host (ansible_host), wireguard_address, and whether it is the primary or has
    GPUs, by the variables and groups of Chutes' playbooks. Raises BadNodeImport.
    """
    hosts: dict[str, dict[str, Any]] = {}
    groups: dict[str, set[str]] = {}
    _walk(inventory, "all", {}, hosts, groups, 0)
    if not hosts:
        raise BadNodeImport("the Ansible inventory names no hosts; give inventory.yml as it is run")
    return [_node(name, values, groups[name]) for name, values in hosts.items()]


def _walk(
    tree: Any,
    group: str,
    inherited: dict[str, Any],
    hosts: dict[str, dict[str, Any]],
    groups: dict[str, set[str]],
    depth: int,
) -> None:
    parts = (
        {}
        if not isinstance(tree, dict)
        else {key: tree.get(key) or {} for key in ("vars", "hosts", "children")}
    )
    if not parts or depth > 20 or not all(isinstance(part, dict) for part in parts.values()):
        raise BadNodeImport(f"the Ansible group {group!r} is no group of hosts and children")
    inherited = inherited | parts["vars"]
    for name, values in parts["hosts"].items():
        if not isinstance(values, dict | type(None)):
            raise BadNodeImport(f"the Ansible host {name!r} has no variables by name")
        hosts[name] = hosts.get(name, {}) | inherited | (values or {})
        groups.setdefault(name, set()).add(group)
    children = parts["children"]
    if depth == 0:
        children = children | {key: tree[key] for key in tree if key not in parts}
    for name, child in children.items():
        _walk(child or {}, name, inherited, hosts, groups, depth + 1)


def _node(name: str, values: dict[str, Any], groups: set[str]) -> dict[str, Any]:
    node: dict[str, Any] = {"name": str(name), "host": str(values.get("ansible_host", name))}
    if "wireguard_ip" in values:
        node["wireguard_address"] = str(values["wireguard_ip"])
    if values.get("is_primary") or "primary" in groups or values.get("wireguard_primary"):
        node["wireguard_primary"] = True
    if values.get("external_ip"):
        node["public_address"] = str(values["external_ip"])
    node["networks"] = ["chutes"]
    return node
