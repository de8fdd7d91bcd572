"""Keeping Dagster small: the newest windows stay as partitions, the lake keeps everything."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.tags import PARTITION_NAME_TAG

from windrow.assets.window.partitions import windows
from windrow.engine.mining.spool import forget_groups
from windrow.networks.grail.checkpoint import retained_windows
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import parse_window, window_start
from windrow.pipelines.jobs import UPKEEP_TAGS
from windrow.resources.chain import Chain
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage.expiry import S3Clients, clear_unfinished, expire_windows
from windrow.resources.storage.objects import ObjectStore
from windrow.resources.tracking.tracker import forget_runs
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake

KEPT_WINDOWS = 3_360
"""14 days. The UI recomputes the status of every key when one is added (docs/operations.md)."""
KEPT_SECONDS = 14 * 24 * 3600
"""How long runs that belong to no window stay."""
SHOWN_SECONDS = 24 * 3600
"""How long the runs of an older window that was worked on again stay, to be looked at."""
RUNS_PER_TICK = 500
"""Deleting a run takes about 30 ms; what is left waits for the next hour."""

_BACKFILL_IN_PROGRESS = [
    BulkActionStatus.REQUESTED,
    BulkActionStatus.CANCELING,
    BulkActionStatus.FAILING,
]


@dataclass(frozen=True)
class Pruned:
    """What was deleted from Dagster. windows: keys that are no partition any more."""

    windows: Sequence[str]
    runs: int


def prune(
    instance: dg.DagsterInstance, keep: int = KEPT_WINDOWS, now: float | None = None
) -> Pruned:
    """Drop all but the newest `keep` windows, and the runs that belong to none.

    Windows that a run works on or has worked on within a day stay, and nothing is pruned while a
    backfill is in progress: it needs its keys. A pruned window is registered again when named.
    """
    if instance.get_backfills(BulkActionsFilter(statuses=_BACKFILL_IN_PROGRESS), limit=1):
        return Pruned([], 0)
    now = time.time() if now is None else now
    records = instance.get_run_records(ascending=True)
    busy = {
        record.dagster_run.tags.get(PARTITION_NAME_TAG)
        for record in records
        if not record.dagster_run.is_finished
        or record.create_timestamp.timestamp() > now - SHOWN_SECONDS
    }
    keys = windows.get_partition_keys(dynamic_partitions_store=instance)
    stale = [key for key in keys[: max(0, len(keys) - keep)] if key not in busy]
    for key in stale:
        instance.delete_dynamic_partition(windows.name, key)
    kept = set(keys) - set(stale)
    ended = [record for record in records if record.dagster_run.is_finished]
    gone = [r for r in ended if _is_gone(r.dagster_run, r.create_timestamp.timestamp(), kept, now)]
    for record in gone[:RUNS_PER_TICK]:
        _forget_run(instance, record.dagster_run.run_id)
    return Pruned(stale, len(gone[:RUNS_PER_TICK]))


def _is_gone(run: dg.DagsterRun, created: float, kept: set[str], now: float) -> bool:
    key = run.tags.get(PARTITION_NAME_TAG)
    if key is not None and parse_window(key) is not None:
        return key not in kept
    return created < now - KEPT_SECONDS


def _forget_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, and the files that `delete_run` leaves behind: its log and its database."""
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    if isinstance(instance.event_log_storage, SqliteEventLogStorage):
        Path(instance.event_log_storage.path_for_shard(run_id)).unlink(missing_ok=True)


@dg.op
def prune_windows(
    context: dg.OpExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    chain: dg.ResourceParam[Chain],
    checkpoints: dg.ResourceParam[CheckpointCache],
    bucket: dg.ResourceParam[ObjectStore],
    s3: dg.ResourceParam[S3Clients | None],
    wallet: dg.ResourceParam[Wallet],
) -> None:
    """Delete what is older than the horizon from Dagster, never from the lake.

    The spool of a pruned window goes as well once the lake has its rollouts, and so do cached
    checkpoints that no window of late can select (grail-protocol §9.4), W&B's files after 14 days,
    and in the bucket the miner's files older than the windows that WINDROW_BUCKET_WINDOWS keeps
    and its uploads in parts that nobody ended.
    """
    pruned = prune(context.instance)
    for key in pruned.windows:
        if lake.exists("rollouts", int(key)):
            forget_groups(settings.home / "spool", int(key))
    forgotten = forget_runs(settings.home / "wandb", time.time() - KEPT_SECONDS)
    context.log.info(
        f"pruned {len(pruned.windows)} windows, {pruned.runs} runs and W&B's files of {forgotten}; "
        "the lake is untouched"
    )
    newest = window_start(chain.block())
    checkpoints.prune(retained_windows(newest))
    if settings.bucket_windows:
        oldest = newest - (settings.bucket_windows - 1) * WINDOW_BLOCKS
        expired = expire_windows(bucket, wallet.hotkey, oldest)
        context.log.info(f"deleted {len(expired)} files of old windows from the bucket")
    unfinished = clear_unfinished(s3, bucket, wallet.hotkey)
    context.log.info(f"ended {len(unfinished)} uploads to the bucket that were never finished")


@dg.job(executor_def=dg.in_process_executor, tags=UPKEEP_TAGS)
def retention() -> None:
    """Keep the newest 3,360 windows and their runs."""
    prune_windows()


retention_schedule = dg.ScheduleDefinition(
    name="hourly_retention",
    job=retention,
    cron_schedule="17 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
