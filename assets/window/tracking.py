"""Send a window's metrics to the tracker, at no cost to the window."""

from collections.abc import Callable

import dagster as dg

from windrow import WindrowError
from windrow.assets.window.faults import WHOLE_WINDOW, record_faults
from windrow.engine.mining.spool import DroppedGroup
from windrow.resources.tracking.metrics import WindowMetrics
from windrow.resources.tracking.tracker import NoTracker, Tracker
from windrow.resources.warehouse.lake import Lake


def track(
    context: dg.AssetExecutionContext,
    tracker: Tracker,
    lake: Lake,
    metrics: Callable[[Lake, int, str], WindowMetrics],
    hotkey: str,
) -> None:
    """Hand this window's metrics to the tracker. What goes wrong is a warning and a row of faults.

    metrics: reads them from the lake.
    """
    if isinstance(tracker, NoTracker):
        return
    window, run_id = int(context.partition_key), context.run.run_id
    try:
        tracker.log(metrics(lake, window, hotkey))
    except Exception as error:  # noqa: BLE001 - the window's work is done; nothing here undoes it
        context.log.warning(f"tracking: {error}")
        fault = DroppedGroup(WHOLE_WINDOW, "tracking", type(error).__name__, str(error))
        source = f"tracking_{context.asset_key.path[-1]}"
        try:
            record_faults(lake, window, hotkey, source, [fault], run_id=run_id)
        except WindrowError as unrecorded:
            context.log.warning(f"tracking: not even kept in the lake: {unrecorded}")
