"""Runs that lost their process end, late ones leave the queue, and each leaves a row."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.metadata import MetadataValue
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus

from tests.pipelines.test_sensors import WINDOW, chain_at
from windrow.assets.window.partitions import OPEN_WINDOW_TAG
from windrow.pipelines.build import build
from windrow.pipelines.runs.launcher import WatchedRunLauncher, adopt_worker, describe_loss
from windrow.pipelines.runs.queue import Trouble, inspect_queue
from windrow.pipelines.runs.watch import (
    ORPHAN_START_SECONDS,
    START_SECONDS,
    drop_late_runs,
    end_lost_runs,
    record_failure,
)
from windrow.pipelines.runs.worker import (
    LAUNCHER_TAG,
    WORKER_TAG,
    find_worker,
    tagged_worker,
    worker_tag,
)
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse.lake import Lake

HOTKEY = "5Miner"
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("127.0.0.1", port=1), "__repository__"),
    "mine_window",
)
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@contextlib.contextmanager
def process() -> Iterator[Any]:
    """A process that does nothing until it is killed."""
    child = SPAWN.Process(target=time.sleep, args=(60,))
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def begin(
    instance: dg.DagsterInstance,
    status: DagsterRunStatus,
    window: int | None = WINDOW,
    tags: dict[str, str] | None = None,
) -> DagsterRun:
    partition = {} if window is None else {"dagster/partition": str(window)}
    run = dg.DagsterRun(
        job_name="mine_window",
        status=status,
        tags={**partition, **(tags or {})},
        remote_job_origin=ORIGIN,
    )
    instance.add_run(run)
    return run


def report_pid(instance: dg.DagsterInstance, run: DagsterRun, pid: int) -> None:
    """What a worker writes first."""
    data = EngineEventData(metadata={"pid": MetadataValue.text(str(pid))})
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, data)


def status_of(instance: dg.DagsterInstance, run: DagsterRun) -> DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def reread(instance: dg.DagsterInstance, run: DagsterRun) -> DagsterRun:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def test_a_worker_is_the_same_process_and_no_other() -> None:
    with process() as child:
        worker = find_worker(child.pid)
        assert worker is not None
        assert worker.exists()
        assert not replace(worker, started=worker.started + 1).exists()  # the number is used again
        assert not replace(worker, boot="another boot").exists()
        assert replace(worker, host="elsewhere", pid=1).exists()  # nobody here can tell
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert not worker.exists()
        assert find_worker(child.pid) is None


def test_a_zombie_does_not_exist() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    try:
        deadline = time.monotonic() + 10
        while find_worker(pid) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.waitpid(pid, 0)


def test_a_retry_does_not_inherit_its_parents_worker() -> None:
    worker = find_worker(os.getpid())
    assert worker is not None
    tags = worker_tag("parent", worker)
    assert tagged_worker(dg.DagsterRun(job_name="x", run_id="parent", tags=tags)) == worker
    assert tagged_worker(dg.DagsterRun(job_name="x", run_id="retry", tags=tags)) is None


@pytest.mark.parametrize("text", ["", "7", "[]", "{}", '{"run_id": 3}', '{"run_id": "r", "x": 1}'])
def test_a_tag_that_says_nothing_names_no_worker(text: str) -> None:
    run = dg.DagsterRun(job_name="x", run_id="r", tags={WORKER_TAG: text})
    assert tagged_worker(run) is None


def test_a_run_is_healthy_as_long_as_its_process(instance: dg.DagsterInstance) -> None:
    launcher = WatchedRunLauncher()
    launcher.register_instance(instance)
    run = begin(instance, DagsterRunStatus.STARTED)
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING  # no word of it yet
    with process() as child:
        report_pid(instance, run, child.pid)
        assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        assert tagged_worker(reread(instance, run)) == find_worker(child.pid)
        assert end_lost_runs(instance) == []
        child.kill()
        child.join()
        health = launcher.check_run_worker_health(reread(instance, run))
        assert health.status is WorkerStatus.NOT_FOUND
        assert str(child.pid) in (health.msg or "")
    assert end_lost_runs(instance) == [run.run_id]
    assert status_of(instance, run) is DagsterRunStatus.FAILURE
    assert end_lost_runs(instance) == []


def test_a_process_younger_than_the_report_is_another_one(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(instance, DagsterRunStatus.STARTED)
    early = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: early)
    report_pid(instance, run, os.getpid())
    monkeypatch.undo()
    assert adopt_worker(instance, run) is None
    assert describe_loss(instance, run) is not None


def test_a_cancelled_run_without_a_process_is_cancelled(instance: dg.DagsterInstance) -> None:
    run = begin(instance, DagsterRunStatus.CANCELING)
    with process() as child:
        report_pid(instance, run, child.pid)
        adopt_worker(instance, run)
    assert end_lost_runs(instance) == [run.run_id]
    assert status_of(instance, run) is DagsterRunStatus.CANCELED


def test_a_start_that_no_process_confirms_is_lost(instance: dg.DagsterInstance) -> None:
    run = begin(instance, DagsterRunStatus.STARTING)
    began = instance.get_run_records()[0].update_timestamp.timestamp()
    assert end_lost_runs(instance, now=began + START_SECONDS - 1) == []
    assert end_lost_runs(instance, now=began + START_SECONDS + 1) == [run.run_id]
    assert status_of(instance, run) is DagsterRunStatus.FAILURE


def test_a_start_is_lost_sooner_when_its_launcher_is_gone(instance: dg.DagsterInstance) -> None:
    run = begin(instance, DagsterRunStatus.STARTING)
    with process() as child:
        worker = find_worker(child.pid)
        assert worker is not None
        instance.add_run_tags(run.run_id, worker_tag(run.run_id, worker, LAUNCHER_TAG))
        began = instance.get_run_records()[0].update_timestamp.timestamp()
        assert end_lost_runs(instance, now=began + ORPHAN_START_SECONDS + 1) == []
    assert end_lost_runs(instance, now=began + ORPHAN_START_SECONDS - 1) == []
    assert end_lost_runs(instance, now=began + ORPHAN_START_SECONDS + 1) == [run.run_id]


def test_only_runs_for_an_open_window_that_closed_leave_the_queue(
    instance: dg.DagsterInstance, lake: Lake, tmp_path: Path
) -> None:
    chain = chain_at(tmp_path, WINDOW + 7)
    late = [
        begin(instance, DagsterRunStatus.QUEUED, window, OPEN_WINDOW_TAG)
        for window in (WINDOW - 30, WINDOW - 60)
    ]
    kept = [
        begin(instance, DagsterRunStatus.QUEUED, WINDOW, OPEN_WINDOW_TAG),
        begin(instance, DagsterRunStatus.QUEUED, WINDOW - 30),  # a replay that somebody asked for
        begin(instance, DagsterRunStatus.STARTED, WINDOW - 30, OPEN_WINDOW_TAG),
        begin(instance, DagsterRunStatus.QUEUED, None),
    ]
    assert drop_late_runs(instance, chain, lake, HOTKEY) == [WINDOW - 60, WINDOW - 30]
    assert {status_of(instance, run) for run in late} == {DagsterRunStatus.CANCELED}
    assert [status_of(instance, run) for run in kept] == [run.status for run in kept]
    rows = lake.query("SELECT window_start, reason, run_id FROM faults ORDER BY 1").to_pylist()
    assert rows == [
        {"window_start": WINDOW - 60, "reason": "missed", "run_id": late[1].run_id},
        {"window_start": WINDOW - 30, "reason": "missed", "run_id": late[0].run_id},
    ]


def test_a_failed_run_leaves_one_row(instance: dg.DagsterInstance, lake: Lake) -> None:
    run = begin(instance, DagsterRunStatus.FAILURE)
    record_failure(lake, HOTKEY, run, "Detected run worker status NOT_FOUND: 'RunLost: process 7'")
    record_failure(lake, HOTKEY, run, "said again")
    other = begin(instance, DagsterRunStatus.FAILURE, WINDOW + 30)
    record_failure(lake, HOTKEY, other, "Run timed out")
    record_failure(lake, HOTKEY, begin(instance, DagsterRunStatus.FAILURE, None), "no window")
    rows = lake.query("SELECT window_start, stage, reason FROM faults ORDER BY 1").to_pylist()
    assert rows == [
        {"window_start": WINDOW, "stage": "mine_window", "reason": "RunLost"},
        {"window_start": WINDOW + 30, "stage": "mine_window", "reason": "RunFailed"},
    ]


def test_the_queue_tells_what_does_not_get_on(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    chain = chain_at(tmp_path, WINDOW + 7)
    stuck = begin(instance, DagsterRunStatus.STARTED)
    with process() as child:
        report_pid(instance, stuck, child.pid)
        adopt_worker(instance, stuck)
    late = begin(instance, DagsterRunStatus.QUEUED, WINDOW - 30, OPEN_WINDOW_TAG)
    starving = begin(instance, DagsterRunStatus.QUEUED, WINDOW - 60, {"lane": "validation"})
    held_up = begin(instance, DagsterRunStatus.QUEUED, WINDOW, OPEN_WINDOW_TAG)
    now = time.time()
    fresh = inspect_queue(instance, chain, now)
    assert {run.run_id: run.trouble for run in fresh.troubled} == {
        stuck.run_id: Trouble.STUCK,
        late.run_id: Trouble.LATE,
    }
    later = inspect_queue(instance, chain, now + 400)
    assert {run.run_id: run.trouble for run in later.troubled} == {
        stuck.run_id: Trouble.STUCK,
        late.run_id: Trouble.LATE,
        starving.run_id: Trouble.STARVING,
        held_up.run_id: Trouble.STARVING,
    }
    assert (fresh.working, fresh.waiting, fresh.daemon_runs) == (1, 3, False)
    assert "has not run" in fresh.summarise()


def test_lanes_cannot_take_each_others_places() -> None:
    """The queue admits the sum of all lanes, so a full lane leaves room for every other."""
    import yaml

    root = Path(__file__).parents[3]
    runs = yaml.safe_load((root / "dagster.yaml").read_text())["concurrency"]["runs"]
    lanes = {
        limit["value"]: limit["limit"]
        for limit in runs["tag_concurrency_limits"]
        if limit["key"] == "lane"
    }
    assert sum(lanes.values()) < runs["max_concurrent_runs"]
    definitions = build(Settings.read({"WINDROW_CHAIN_CLOCK": "stepped"}))
    used = {
        definitions.resolve_job_def(job.name).tags.get("lane")
        for job in definitions.resolve_all_job_defs()
        if not job.name.startswith("__")
    }
    assert used == set(lanes)


def test_the_instance_takes_this_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    (tmp_path / "dagster.yaml").write_bytes((root / "dagster.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        assert isinstance(made.run_launcher, WatchedRunLauncher)
        assert made.run_monitoring_enabled
