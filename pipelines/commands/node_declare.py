"""`windrow node add` and `remove`: fleet.yaml, a node at a time."""

import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from windrow.engine.fleet.inventory import Node
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.inventory_file import FleetFile


def declare(out: Console, fields: Mapping[str, Any]) -> None:
    """Declare a node; what is not given, or is the default, is left out. Raises InvalidFleet."""
    file = FleetFile(Settings.read().fleet)
    given = {name: value for name, value in fields.items() if value not in (None, [], "")}
    defaults = {name: field.default for name, field in Node.model_fields.items()}
    kept = ("name", "host", "transport")
    node = {
        name: value for name, value in given.items() if name in kept or value != defaults.get(name)
    }
    file.add(node)
    out.print(
        f"{fields['name']} is declared in {file.path}\n  windrow node verify {fields['name']}",
        highlight=False,
        soft_wrap=True,
    )


def forget(out: Console, name: str) -> None:
    """Take a node out of the inventory, and its partition with it. Raises UnknownNode."""
    file = FleetFile(Settings.read().fleet)
    file.remove(name)
    out.print(f"{name} is no longer in {file.path}; the lake keeps what it has of it")
    if "DAGSTER_HOME" in os.environ:
        from windrow.assets.fleet.partitions import nodes
        from windrow.pipelines.instance import open_instance

        with open_instance() as instance:
            if instance.has_dynamic_partition(nodes.name, name):
                instance.delete_dynamic_partition(nodes.name, name)
