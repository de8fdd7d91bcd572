"""The partition of everything that belongs to a scoring window: its first block."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg
from dagster._core.instance import DynamicPartitionsStore

from windrow.networks.grail.windows import parse_window


class WindowPartitions(dg.DynamicPartitionsDefinition):
    """Dynamic partitions whose valid keys are known from the key alone.

    A well-formed window the instance has not seen is registered when it is first named, so any
    window works from the command line on an empty instance. Processes that only show the asset
    graph see an ordinary DynamicPartitionsDefinition.
    """

    def get_partition_keys(
        self,
        current_time: datetime | None = None,
        dynamic_partitions_store: DynamicPartitionsStore | None = None,
    ) -> Sequence[str]:
        """The registered windows, oldest first, so that a range of keys is a range of blocks."""
        keys = super().get_partition_keys(current_time, dynamic_partitions_store)
        return sorted((key for key in keys if parse_window(key) is not None), key=int)

    def has_partition_key(
        self,
        partition_key: str,
        current_time: datetime | None = None,
        dynamic_partitions_store: DynamicPartitionsStore | None = None,
    ) -> bool:
        """Whether the key is a window; registers it with the instance at hand."""
        if parse_window(partition_key) is None:
            return False
        with dg.partition_loading_context(current_time, dynamic_partitions_store) as context:
            store = context.dynamic_partitions_store
            name = self._validated_name()
            if isinstance(store, dg.DagsterInstance) and not store.has_dynamic_partition(
                name, partition_key
            ):
                store.add_dynamic_partitions(name, [partition_key])
            return True


windows = WindowPartitions(name="windows")

OPEN_WINDOW_TAG = {"windrow/mines": "open window"}
"""Tag of a run that only makes sense while its window is open. Any other run mines any window."""
