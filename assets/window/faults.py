"""What went wrong in a window, kept as rows: no group or window is lost without a reason."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from windrow import WindrowError
from windrow.engine.mining.spool import DroppedGroup
from windrow.resources.chain import Chain
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS

WHOLE_WINDOW = -1
"""The group number of a fault that is not one group's."""


def record_faults(
    lake: Lake,
    window_start: int,
    hotkey: str,
    source: str,
    faults: Sequence[DroppedGroup],
    *,
    run_id: str = "",
) -> None:
    """Store what `source` (an asset or a sensor) met with in one run of this window."""
    rows = [
        {
            "window_start": window_start,
            "hotkey": hotkey,
            "run_id": run_id or None,
            "stage": fault.stage,
            "rollout_group": None if fault.group == WHOLE_WINDOW else fault.group,
            "reason": fault.reason,
            "detail": fault.detail,
            "recorded_at": time.time(),
        }
        for fault in faults
    ]
    name = ".".join(filter(None, (hotkey, source, run_id)))
    table = DATASETS["faults"].table(rows)
    lake.write("faults", window_start, name, table, run_id=run_id, replace=True)


@contextmanager
def faults_kept(
    lake: Lake,
    window_start: int,
    hotkey: str,
    source: str,
    run_id: str,
    *,
    chain: Chain | None = None,
) -> Iterator[list[DroppedGroup]]:
    """A list for faults, stored however the step ends, with what was noticed about the chain.

    A WindrowError becomes one of them, and a failed step that says the same and is not retried.
    """
    faults: list[DroppedGroup] = []
    try:
        yield faults
        faults += _concerns(chain)
    except WindrowError as error:
        faults += _concerns(chain)
        faults.append(DroppedGroup(WHOLE_WINDOW, source, type(error).__name__, str(error)))
        description = str(error)
        try:
            record_faults(lake, window_start, hotkey, source, faults, run_id=run_id)
        except WindrowError as unrecorded:
            description += f" (and this could not be kept in the lake: {unrecorded})"
        raise dg.Failure(
            description=description,
            metadata={"reason": type(error).__name__},
            allow_retries=False,
        ) from error
    if faults:
        record_faults(lake, window_start, hotkey, source, faults, run_id=run_id)


def _concerns(chain: Chain | None) -> list[DroppedGroup]:
    return [
        DroppedGroup(WHOLE_WINDOW, "chain", concern.name, concern.detail)
        for concern in (chain.concerns() if chain is not None else [])
    ]
