"""Keeping Dagster small: the newest windows stay as partitions, the lake keeps everything."""

import time

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from windrow.assets.window.partitions import windows
from windrow.networks.grail.windows import parse_window

KEPT_WINDOWS = 3_360
"""14 days. The UI recomputes the status of every key when one is added (docs/operations.md)."""
KEPT_SECONDS = 14 * 24 * 3600
RUNS_PER_TICK = 500
"""Deleting a run takes about 30 ms; what is left waits for the next hour."""

_ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def prune(instance: dg.DagsterInstance, keep: int = KEPT_WINDOWS) -> tuple[int, int]:
    """Drop all but the newest `keep` windows and the runs that belong to none.

    Returns the numbers of windows and of runs deleted. Runs still at work are left alone. A
    pruned window is registered again when it is named, for instance to backfill it.
    """
    name = windows.name
    if name is None:
        raise ValueError("the window partitions have no name")
    keys = sorted(instance.get_dynamic_partitions(name), key=int)
    stale = keys[:-keep] if keep else keys
    kept = set(keys) - set(stale)
    for key in stale:
        instance.delete_dynamic_partition(name, key)
    deleted = 0
    oldest = time.time() - KEPT_SECONDS
    records = instance.get_run_records(dg.RunsFilter(statuses=_ENDED), ascending=True)
    for record in records:
        if deleted == RUNS_PER_TICK:
            break
        key = record.dagster_run.tags.get(PARTITION_NAME_TAG)
        of_window = key is not None and parse_window(key) is not None
        gone = key not in kept if of_window else record.create_timestamp.timestamp() < oldest
        if gone:
            instance.delete_run(record.dagster_run.run_id)
            deleted += 1
    return len(stale), deleted


@dg.op
def prune_windows(context: dg.OpExecutionContext) -> None:
    """Delete windows and runs older than the horizon from Dagster; never from the lake."""
    pruned, runs = prune(context.instance)
    context.log.info(f"pruned {pruned} windows and {runs} runs; the lake is untouched")


@dg.job(executor_def=dg.in_process_executor)
def retention() -> None:
    """Keep the newest 3,360 windows and their runs."""
    prune_windows()


retention_schedule = dg.ScheduleDefinition(
    name="hourly_retention",
    job=retention,
    cron_schedule="17 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
