"""Retention: Dagster keeps the newest windows, the lake keeps all."""

import dataclasses
import os
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from tests.support.lake_rows import rows_of
from windrow.assets.window.partitions import windows
from windrow.engine.mining.spool import Spool
from windrow.networks.grail.bucket import WINDOWS_PREFIX, window_file_key
from windrow.networks.grail.windows import window_start
from windrow.pipelines.build import build
from windrow.pipelines.demo.network import trainer
from windrow.pipelines.live import window_resources
from windrow.pipelines.retention import KEPT_WINDOWS, prune
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse.lake import Lake

DAY = 24 * 3600.0


@dg.job(executor_def=dg.in_process_executor)
def idle() -> None:
    """A run that does nothing."""


def run_of(instance: dg.DagsterInstance, key: str | None) -> str:
    tags = {} if key is None else {"dagster/partition": key}
    return idle.execute_in_process(instance=instance, tags=tags).run_id


def runs(instance: dg.DagsterInstance) -> set[str]:
    return {record.dagster_run.run_id for record in instance.get_run_records()}


def test_the_newest_windows_and_their_runs_stay(instance: dg.DagsterInstance) -> None:
    keys = ["150", "60", "120", "30", "90"]
    instance.add_dynamic_partitions("windows", keys)
    ran = {key: run_of(instance, key) for key in keys}
    of_none = run_of(instance, None)
    pruned = prune(instance, keep=2, now=time.time() + 2 * DAY)
    assert pruned.windows == ["30", "60", "90"]
    assert pruned.runs == 3
    assert sorted(instance.get_dynamic_partitions("windows")) == ["120", "150"]
    assert runs(instance) == {ran["120"], ran["150"], of_none}
    prune(instance, keep=2, now=time.time() + 15 * DAY)
    assert runs(instance) == {ran["120"], ran["150"]}


def test_a_deleted_run_leaves_no_file_behind(
    instance_on_disk: dg.DagsterInstance, tmp_path: Path
) -> None:
    instance = instance_on_disk
    instance.add_dynamic_partitions("windows", ["30"])
    run = run_of(instance, "30")
    assert list(tmp_path.rglob(f"*{run}*"))
    prune(instance, keep=0, now=time.time() + 2 * DAY)
    assert not list(tmp_path.rglob(f"*{run}*"))


def test_windows_at_work_or_just_worked_on_stay(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("windows", ["30", "60", "90"])
    working = instance.create_run_for_job(
        idle, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "30"}
    )
    fresh = run_of(instance, "60")
    assert prune(instance, keep=0).windows == ["90"]
    assert prune(instance, keep=0, now=time.time() + 2 * DAY).windows == ["60"]
    assert fresh not in runs(instance)
    assert runs(instance) == {working.run_id}


def test_a_backfill_keeps_its_windows_until_it_ends(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("windows", ["30", "60"])
    backfill = PartitionBackfill(
        backfill_id="b",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=time.time(),
        partition_names=["30"],
    )
    instance.add_backfill(backfill)
    assert prune(instance, keep=1).windows == []
    instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert prune(instance, keep=1).windows == ["30"]


def test_a_pruned_window_comes_back_with_its_name(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("windows", ["30", "60"])
    prune(instance, keep=1)
    assert windows.has_partition_key("30", dynamic_partitions_store=instance)
    assert windows.get_partition_keys(dynamic_partitions_store=instance) == ["30", "60"]


def test_the_job_frees_the_spool_of_stored_windows_only(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [str(window) for window in range(0, 30 * (KEPT_WINDOWS + 3), 30)]
    instance.add_dynamic_partitions("windows", keys)
    lake = Lake(settings.lake)
    spools = {window: Spool(settings.home / "spool", window, "hk", "made") for window in (0, 30)}
    path = lake.write("rollouts", 30, "hk", rows_of("rollouts", 30))
    job = build(settings).resolve_job_def("retention")
    assert job.execute_in_process(instance=instance).success
    assert len(instance.get_dynamic_partitions("windows")) == KEPT_WINDOWS
    assert path.exists()
    assert not spools[30].folder.exists()
    assert spools[0].folder.exists()


def test_the_job_deletes_the_miners_old_files_from_the_bucket(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    settings = dataclasses.replace(settings, bucket_windows=2)
    resources = window_resources(settings)
    bucket, hotkey = resources["bucket"], resources["wallet"].hotkey
    newest = window_start(resources["chain"].block())
    kept = [window_file_key(hotkey, newest), window_file_key(hotkey, newest - 30)]
    others = window_file_key(trainer().hotkey, 30)
    old = window_file_key(hotkey, newest - 60)
    for key in (*kept, others, old):
        bucket.put(key, b"x")
    job = build(settings).resolve_job_def("retention")
    assert job.execute_in_process(instance=instance).success
    left = {info.key for info in bucket.list(WINDOWS_PREFIX)}
    assert {*kept, others} <= left
    assert old not in left


def test_the_job_deletes_what_wandb_keeps_of_old_windows(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    runs = settings.home / "wandb" / "wandb"
    old, new = runs / "offline-run-20260101_000000-a", runs / "offline-run-20260201_000000-a"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "run-a.wandb").write_bytes(b"x")
    os.utime(old, (time.time() - 15 * DAY,) * 2)
    (runs / "latest-run").symlink_to(new)
    (runs / "debug.log").write_text("kept")
    job = build(settings).resolve_job_def("retention")
    assert job.execute_in_process(instance=instance).success
    assert {path.name for path in runs.iterdir()} == {new.name, "latest-run", "debug.log"}
