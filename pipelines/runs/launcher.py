"""Dagster's run launcher, with an answer to whether a run's process still exists.

Dagster's own launcher cannot tell: when a machine reboots, its runs stay STARTED until their time
limit, and hold their place in the queue meanwhile. Dagster's monitoring daemon asks this one every
few seconds, for the first time when the daemon starts, and ends the runs whose process is gone.
"""

import os
import time
from dataclasses import dataclass

import dagster as dg
import psutil
from dagster._core.events import DagsterEventType
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    WorkerStatus,
)
from dagster._core.storage.dagster_run import DagsterRun

from windrow.pipelines.runs.worker import (
    LAUNCHER_TAG,
    Worker,
    find_worker,
    tagged_worker,
    worker_tag,
)

_REPORT_SECONDS = 2.0
"""How long a launch waits for its process to report its id: it does so as its first event."""
_LOOK_SECONDS = 0.02
_CLOCK_SECONDS = 5.0
"""How far the clock may be set between a worker's start and the look that adopts it."""


class WatchedRunLauncher(DefaultRunLauncher):
    """Starts runs on the code server and knows which process each one is."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run and tag it with its worker, once that has reported its process id."""
        run_id, here = context.dagster_run.run_id, find_worker(os.getpid())
        if here is not None:
            self._instance.add_run_tags(run_id, worker_tag(run_id, here, LAUNCHER_TAG))
        super().launch_run(context)
        until = time.monotonic() + _REPORT_SECONDS
        while adopt_worker(self._instance, context.dagster_run) is None:
            if time.monotonic() > until:  # the next health check adopts it
                return
            time.sleep(_LOOK_SECONDS)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Tell whether the run's process exists. A worker on another host counts as running."""
        lost = describe_loss(self._instance, run)
        if lost is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, lost)


def describe_loss(instance: dg.DagsterInstance, run: DagsterRun) -> str | None:
    """Return why a run has no process any more, or None while it has one or none is known."""
    worker = tagged_worker(run)
    if worker is not None:
        if worker.exists():
            return None
        return f"RunLost: process {worker.pid} on {worker.host} ended without ending the run"
    report = find_report(instance, run.run_id)
    if report is None or adopt_worker(instance, run) is not None:
        return None
    return f"RunLost: process {report.pid} ended without ending the run"


@dataclass(frozen=True)
class Report:
    """A worker's first event: its process id, and the unix time at which it wrote it."""

    pid: int
    time: float


def adopt_worker(instance: dg.DagsterInstance, run: DagsterRun) -> Worker | None:
    """Tag a run with the process that reported to work on it; None where it is not running here.

    A process that started after the report has only been given the same number.
    """
    report = find_report(instance, run.run_id)
    if report is None or not _is_older(report):
        return None
    worker = find_worker(report.pid)
    if worker is not None:
        instance.add_run_tags(run.run_id, worker_tag(run.run_id, worker))
    return worker


def find_report(instance: dg.DagsterInstance, run_id: str) -> Report | None:
    """Return the first event of a run that names a process: the worker writes it at its start."""
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        metadata = event.engine_event_data.metadata if event is not None else {}
        if "pid" in metadata:
            return Report(int(str(metadata["pid"].value)), entry.timestamp)
    return None


def _is_older(report: Report) -> bool:
    try:
        return psutil.Process(report.pid).create_time() < report.time + _CLOCK_SECONDS
    except psutil.Error:
        return False
