"""Sensors that look after runs: lost ones end, late ones leave the queue, and each leaves a row.

Dagster's monitoring daemon ends STARTED runs whose process is gone (pipelines/runs/launcher.py).
What it leaves alone is done here: runs that never got a process, and mining runs whose window
closed while they waited.
"""

import time
from collections.abc import Iterable, Iterator

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from windrow.assets.window.faults import WHOLE_WINDOW, record_faults
from windrow.assets.window.partitions import OPEN_WINDOW_TAG
from windrow.engine.mining.spool import DroppedGroup
from windrow.networks.grail.windows import parse_window
from windrow.pipelines.jobs import mine_window, validate_window
from windrow.pipelines.runs.launcher import describe_loss, find_report
from windrow.pipelines.runs.worker import LAUNCHER_TAG, tagged_worker
from windrow.resources.chain import Chain, is_closed
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake

_ENDED_FROM_OUTSIDE = "This run has been marked as failed from outside the execution context."

START_SECONDS = 60.0
"""How long a process may take to report its start; then the run that waits for it is lost."""
ORPHAN_START_SECONDS = 10.0
"""The same where what launched the run is gone: its process may be gone with it."""


@dg.sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Ends runs that lost their process, and drops queued mining runs whose window has closed. "
        "Each leaves a row in faults."
    ),
)
def watch_runs(
    context: dg.SensorEvaluationContext,
    chain: dg.ResourceParam[Chain],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
) -> dg.SkipReason:
    """End what is lost first, so that its place in the queue is free for the open window."""
    lost = end_lost_runs(context.instance)
    late = drop_late_runs(context.instance, chain, lake, wallet.hotkey)
    return dg.SkipReason(f"ended {len(lost)} lost runs, dropped {len(late)} late ones")


@dg.run_failure_sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    monitored_jobs=[mine_window, validate_window],
    description="Writes a row in faults for each failed run of a window that left none itself.",
)
def failed_run(
    context: dg.RunFailureSensorContext,
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
) -> None:
    """A step that fails by name writes its own row; a process that is killed cannot."""
    run, said = context.dagster_run, context.failure_event.message or ""
    if said == _ENDED_FROM_OUTSIDE:
        # The code server saw its child die and gave no reason.
        said = describe_loss(context.instance, run) or said
    record_failure(lake, wallet.hotkey, run, said)


def end_lost_runs(instance: dg.DagsterInstance, now: float | None = None) -> list[str]:
    """End every run that has lost its process, or never got one; return their ids.

    now: unix seconds, the current time when None.
    """
    now = time.time() if now is None else now
    lost = []
    for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED)):
        run = record.dagster_run
        reason = describe_loss(instance, run) or _describe_missing_start(instance, record, now)
        # Dagster may have ended it since: its own monitor looks at the same runs.
        current = instance.get_run_by_id(run.run_id)
        if reason is None or current is None or current.status != run.status:
            continue
        if run.status is DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, reason)
        else:
            instance.report_run_failed(run, reason)
        lost.append(run.run_id)
    return lost


_UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def _describe_missing_start(
    instance: dg.DagsterInstance, record: RunRecord, now: float
) -> str | None:
    """A start that Dagster announced and no process confirmed."""
    run = record.dagster_run
    if run.status is not DagsterRunStatus.STARTING:
        return None
    launcher = tagged_worker(run, LAUNCHER_TAG)
    orphan = launcher is not None and not launcher.exists()
    seconds = ORPHAN_START_SECONDS if orphan else START_SECONDS
    since = now - record.update_timestamp.timestamp()
    if since < seconds or find_report(instance, run.run_id) is not None:
        return None
    return f"RunLost: no process reported for the run within {seconds:.0f} s of its start"


def drop_late_runs(
    instance: dg.DagsterInstance, chain: Chain, lake: Lake, hotkey: str
) -> list[int]:
    """Cancel queued runs for open windows that have closed; return the windows, oldest first."""
    queued = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED], tags=OPEN_WINDOW_TAG))
    late = []
    for window, run in sorted(_closed(chain, queued), key=lambda pair: pair[0]):
        current = instance.get_run_by_id(run.run_id)
        if current is None or current.status is not DagsterRunStatus.QUEUED:
            continue
        detail = (
            "the window closed while its run waited in the queue; `windrow status` shows what the "
            "queue waited for"
        )
        fault = DroppedGroup(WHOLE_WINDOW, "queue", "missed", detail)
        record_faults(lake, window, hotkey, "queue", [fault], run_id=run.run_id)
        instance.report_run_canceled(run, f"Window {window} has closed: it is not mined any more.")
        late.append(window)
    return late


def _closed(chain: Chain, runs: Iterable[DagsterRun]) -> Iterator[tuple[int, DagsterRun]]:
    for run in runs:
        window = window_of(run)
        if window is not None and is_closed(chain, window):
            yield window, run


def window_of(run: DagsterRun) -> int | None:
    """Return the window that a run works on, or None."""
    return parse_window(run.tags.get(PARTITION_NAME_TAG, ""))


def record_failure(lake: Lake, hotkey: str, run: DagsterRun, message: str) -> None:
    """Store why a run of a window failed, unless one of its steps has done so."""
    window = window_of(run)
    if window is None:
        return
    if lake.exists("faults", window):
        rows = lake.read("faults", window).select(["run_id", "rollout_group"]).to_pylist()
        if {"run_id": run.run_id, "rollout_group": None} in rows:
            return
    reason = "RunLost" if "RunLost" in message else "RunFailed"
    fault = DroppedGroup(WHOLE_WINDOW, run.job_name, reason, message)
    record_faults(lake, window, hotkey, run.job_name, [fault], run_id=run.run_id)
