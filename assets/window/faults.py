"""What went wrong in a window, kept as rows: no group or window is lost without a reason."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from windrow import WindrowError
from windrow.engine.spool import DroppedGroup
from windrow.resources.lake import Lake
from windrow.resources.lake_schema import DATASETS


def record_faults(
    lake: Lake, window_start: int, hotkey: str, source: str, faults: Sequence[DroppedGroup]
) -> None:
    """Replace what `source` (an asset or a sensor) has to say of this window."""
    now = time.time()
    rows = [
        {
            "window_start": window_start,
            "hotkey": hotkey,
            "stage": fault.stage,
            "rollout_group": fault.group if fault.group >= 0 else None,
            "reason": fault.reason,
            "detail": fault.detail,
            "at": now,
        }
        for fault in faults
    ]
    table = DATASETS["faults"].table(rows)
    lake.write("faults", window_start, f"{hotkey}.{source}", table, replace=True)


@contextmanager
def explained(lake: Lake, window_start: int, hotkey: str, source: str) -> Iterator[None]:
    """Turn a WindrowError into a row and a failed step that says the same and is not retried."""
    try:
        yield
    except WindrowError as error:
        reason = type(error).__name__
        record_faults(
            lake, window_start, hotkey, source, [DroppedGroup(-1, source, reason, str(error))]
        )
        raise dg.Failure(
            description=str(error), metadata={"reason": reason}, allow_retries=False
        ) from error
