"""The process that works on a run: which one it is, and whether it still exists.

A process id alone names nothing for long: ids are used again, after a reboot from the beginning.
So a worker is named by host, boot, process id and the start time that the kernel keeps for it.
That time counts from the boot and does not move when somebody sets the clock.
"""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg
import psutil

WORKER_TAG = "windrow/worker"
"""The tag of a run that names its worker. It holds the run's id, because a retry copies tags."""

LAUNCHER_TAG = "windrow/launcher"
"""The same for the process that started the run."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STATE, _STARTED = 0, 19
"""Indices of `state` and `starttime` in /proc/<pid>/stat, counted after the name (proc(5))."""


@dataclass(frozen=True)
class Worker:
    """One process.

    host: name of its machine or container.
    boot: id of the boot it runs in.
    pid: process id on that host.
    started: start time in kernel ticks since the boot; elsewhere than on Linux in unix seconds.
    """

    host: str
    boot: str
    pid: int
    started: float

    def exists(self) -> bool:
        """Whether this very process runs. True where it runs on another host: nobody can tell."""
        if self.host != socket.gethostname():
            return True
        return self.boot == _boot() and _start(self.pid) == self.started


def find_worker(pid: int) -> Worker | None:
    """Return the running process with this id on this host, or None."""
    started = _start(pid)
    return None if started is None else Worker(socket.gethostname(), _boot(), pid, started)


def worker_tag(run_id: str, worker: Worker, name: str = WORKER_TAG) -> dict[str, str]:
    """Return the tag that names the worker of a run, or its launcher."""
    return {name: json.dumps({"run_id": run_id, **asdict(worker)})}


def tagged_worker(run: dg.DagsterRun, name: str = WORKER_TAG) -> Worker | None:
    """Return the process that the run's own tag names, or None."""
    try:
        given = json.loads(run.tags[name])
        if given.pop("run_id") != run.run_id:
            return None
        return Worker(**given)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _start(pid: int) -> float | None:
    """Return the start time of a process; None where none runs. A zombie does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None if _BOOT_ID.exists() else _start_elsewhere(pid)
    # The name stands in parentheses and may itself hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in ("Z", "X", "x") else float(fields[_STARTED])


def _start_elsewhere(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
