"""The partition of everything that belongs to a node: its name."""

from datetime import datetime

import dagster as dg
from dagster._core.instance import DynamicPartitionsStore

from windrow.engine.fleet.inventory import NAME
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.inventory_file import FleetFile


class NodePartitions(dg.DynamicPartitionsDefinition):
    """Dynamic partitions of the nodes that the inventory names.

    A node of fleet.yaml that the instance has not seen is registered when it is first named, so
    any node works from the command line on an empty instance.
    """

    def has_partition_key(
        self,
        partition_key: str,
        current_time: datetime | None = None,
        dynamic_partitions_store: DynamicPartitionsStore | None = None,
    ) -> bool:
        """Whether the key is a node; registers it with the instance. Raises InvalidFleet."""
        if not NAME.fullmatch(partition_key):
            return False
        with dg.partition_loading_context(current_time, dynamic_partitions_store) as context:
            store = context.dynamic_partitions_store
            name = self._validated_name()
            if store is not None and store.has_dynamic_partition(name, partition_key):
                return True
            if partition_key not in FleetFile(Settings.read().fleet).load().nodes:
                return False
            if isinstance(store, dg.DagsterInstance):
                store.add_dynamic_partitions(name, [partition_key])
            return True


nodes = NodePartitions(name="nodes")
