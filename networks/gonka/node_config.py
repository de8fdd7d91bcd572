"""Gonka's `node-config.json`, as a declaration of Windrow's (§2.3)."""

from typing import Any

from windrow import WindrowError


class BadNodeConfig(WindrowError):
    """A node-config.json that is not a list of nodes."""


def from_node_config(document: Any) -> list[dict[str, Any]]:
    """Nodes of a node-config.json: name, host, models with their arguments, GPU count.

    Gonka's hardware is free text, so the card is left to the operator. Raises BadNodeConfig.
    """
    if not isinstance(document, list):
        raise BadNodeConfig("node-config.json is not a list of nodes; give the file as it is")
    nodes = []
    for index, entry in enumerate(document):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise BadNodeConfig(f"entry {index} of node-config.json has no id")
        models = entry.get("models")
        if not isinstance(models, dict) or not all(isinstance(m, dict) for m in models.values()):
            raise BadNodeConfig(f"node {entry['id']!r} of node-config.json has no models by name")
        nodes.append(
            {
                "name": entry["id"],
                "host": entry.get("host", ""),
                "networks": ["gonka"],
                "models": [
                    {"name": name, "args": model.get("args", [])} for name, model in models.items()
                ],
                "ports": [
                    entry[key]
                    for key in ("inference_port", "poc_port")
                    if isinstance(entry.get(key), int)
                ],
            }
        )
    return nodes
