"""`chutes-miner add-node` as the guides write it (chutes §4.1)."""

import argparse
import shlex
from typing import Any, NoReturn

from windrow.networks.foreign import BadImport, Say, ignore, node_name, quoted


class BadNodeImport(BadImport):
    """A declaration of Chutes' tools that cannot be read."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadNodeImport("The add-node command", [_clean(message)])


def from_add_node(command: str, say: Say = ignore) -> dict[str, Any]:
    """What an add-node command declares: name, gpu, hourly_cost and the network.

    It does not say how many cards the node has. Raises BadNodeImport.
    """
    parser = _Parser(prog="add-node", add_help=False, exit_on_error=False, allow_abbrev=False)
    for flag in ("--name", "--validator", "--gpu-short-ref"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--hourly-cost", type=float, required=True)
    others = ("--hotkey", "--miner-api", "--agent-api")
    for flag in others:
        parser.add_argument(flag)
    try:
        words = shlex.split(command.replace("\\\r\n", " ").replace("\\\n", " "))
        start = words.index("add-node") + 1 if "add-node" in words else 0
        found = parser.parse_args(words[start:])
    except (ValueError, argparse.ArgumentError) as error:
        raise BadNodeImport("The add-node command", [_clean(str(error))]) from None
    name = node_name(found.name)
    if not name:
        raise BadNodeImport(
            "The add-node command", [f"--name {quoted(found.name)} has no letter or digit"]
        )
    for flag in ("--validator", *others):
        if getattr(found, flag[2:].replace("-", "_")) is not None:
            say(f"{name}: {flag} is not taken: fleet.yaml has no field for it")
    return {
        "name": name,
        **kubernetes_name(found.name),
        "gpu": found.gpu_short_ref,
        "hourly_cost": found.hourly_cost,
        "networks": ["chutes"],
    }


def kubernetes_name(name: str) -> dict[str, str]:
    """The node's name in the cluster, where a node of Windrow cannot have it: it may have dots."""
    lower = name.lower()
    labels = lower.split(".")
    known = len(labels) > 1 and all(label == node_name(label) != "" for label in labels)
    return {"kubernetes_node": lower} if known else {}


def _clean(message: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in message[:300])
