"""What the run queue waits for: runs that are stuck, that starve, or that are too late."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import dagster as dg
from dagster._core.storage.dagster_run import (
    IN_PROGRESS_RUN_STATUSES,
    DagsterRunStatus,
    RunRecord,
    RunsFilter,
)

from windrow.assets.window.partitions import OPEN_WINDOW_TAG
from windrow.pipelines.runs.launcher import describe_loss
from windrow.pipelines.runs.watch import window_of
from windrow.resources.chain import Chain, is_closed

STARVING_SECONDS = 360.0
"""A run that has waited for longer than a window lasts on the network."""
OPEN_WINDOW_SECONDS = 30.0
"""The queue looks every second, so a run for the open window that waits longer is held up."""
SILENT_SECONDS = 60.0
"""The daemon writes its heartbeat every 30 s; after two of them it does not run."""
_DAEMON = "QUEUED_RUN_COORDINATOR"


class Trouble(StrEnum):
    """STUCK: the process is gone. STARVING: waits too long. LATE: its window has closed."""

    STUCK = "stuck"
    STARVING = "starving"
    LATE = "late"


@dataclass(frozen=True)
class TroubledRun:
    """One run that does not get on. window: None for a run of no window; seconds: since when."""

    run_id: str
    job: str
    window: int | None
    trouble: Trouble
    seconds: float
    reason: str


@dataclass(frozen=True)
class Queue:
    """daemon_seconds: age of the daemon's last heartbeat; None when it has never run."""

    working: int
    waiting: int
    daemon_seconds: float | None
    troubled: Sequence[TroubledRun]

    @property
    def daemon_runs(self) -> bool:
        return self.daemon_seconds is not None and self.daemon_seconds < SILENT_SECONDS

    def summarise(self) -> str:
        """Return one line: how many runs work and wait, and whether something starts them."""
        if self.daemon_seconds is None:
            daemon = "Dagster's daemon has not run here yet"
        elif self.daemon_runs:
            daemon = "Dagster's daemon runs"
        else:
            daemon = f"Dagster's daemon last ran {self.daemon_seconds:.0f} s ago: nothing starts"
        return f"{self.working} runs at work, {self.waiting} waiting; {daemon}"


def inspect_queue(instance: dg.DagsterInstance, chain: Chain, now: float | None = None) -> Queue:
    """Look at every run that has not ended. now: unix seconds, the current time when None."""
    now = time.time() if now is None else now
    working = instance.get_run_records(RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
    waiting = instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.QUEUED]))
    troubled = [
        *(_examine_working(instance, record, now) for record in working),
        *(_examine_waiting(chain, record, now) for record in waiting),
    ]
    beat = instance.get_daemon_heartbeats().get(_DAEMON)
    return Queue(
        len(working),
        len(waiting),
        None if beat is None else now - beat.timestamp,
        [run for run in troubled if run is not None],
    )


def _examine_working(
    instance: dg.DagsterInstance, record: RunRecord, now: float
) -> TroubledRun | None:
    reason = describe_loss(instance, record.dagster_run)
    return None if reason is None else _troubled(record, Trouble.STUCK, now, reason)


def _examine_waiting(chain: Chain, record: RunRecord, now: float) -> TroubledRun | None:
    run = record.dagster_run
    window = window_of(run)
    mines_open = OPEN_WINDOW_TAG.items() <= run.tags.items() and window is not None
    if mines_open and is_closed(chain, window):
        return _troubled(record, Trouble.LATE, now, "its window closed while it waited")
    limit = OPEN_WINDOW_SECONDS if mines_open else STARVING_SECONDS
    if now - record.create_timestamp.timestamp() <= limit:
        return None
    reason = f"waits for a place in lane {run.tags.get('lane', 'none')}"
    return _troubled(record, Trouble.STARVING, now, reason)


def _troubled(record: RunRecord, trouble: Trouble, now: float, reason: str) -> TroubledRun:
    run = record.dagster_run
    seconds = now - record.create_timestamp.timestamp()
    return TroubledRun(run.run_id, run.job_name, window_of(run), trouble, seconds, reason)
