"""What earlier assets of a window left in the lake."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from windrow import WindrowError
from windrow.resources.checkpoints.cache import CheckpointCache, VerifiedCheckpoint
from windrow.resources.warehouse.lake import Lake


class NotMaterialized(WindrowError):
    """An asset needs another one of the same window that was never made."""


def stored_table(lake: Lake, dataset: str, window: int, hotkey: str) -> pa.Table:
    """The rows of a dataset for this window. Raises NotMaterialized."""
    if not lake.exists(dataset, window, hotkey):
        raise NotMaterialized(
            f"window {window} has no {dataset} in the lake yet: materialize the assets before this "
            "one for this partition first, or all of them with it: --select '*upload'"
        )
    return lake.read(dataset, window, hotkey)


def stored_row(lake: Lake, dataset: str, window: int, hotkey: str) -> dict[str, Any]:
    """The one row of a dataset for this window. Raises NotMaterialized."""
    row: dict[str, Any] = stored_table(lake, dataset, window, hotkey).to_pylist()[0]
    return row


def stored_checkpoint(
    lake: Lake, checkpoints: CheckpointCache, window: int, hotkey: str
) -> VerifiedCheckpoint:
    """The checkpoint this window's `checkpoint` asset chose, verified again."""
    return checkpoints.fetch(stored_row(lake, "checkpoints", window, hotkey)["checkpoint_window"])


def window_file_path(lake: Lake, window: int, hotkey: str) -> Path:
    """Where a window's finished file is kept: in the lake, but no dataset of it."""
    return lake.root / "window_files" / f"window_start={window}" / f"{hotkey}.parquet"
