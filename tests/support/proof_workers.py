"""Proof workers in processes of their own, and what becomes of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windrow.resources.proof_pool.client import Limits
from windrow.resources.proof_pool.pool import ProofPool
from windrow.resources.proof_pool.processes import stop_workers, workers_at

IDLE_SECONDS = 600.0
"""What a failed test leaves behind is gone after that."""


def pool_of(folder: Path, count: int = 2, prove_seconds: float = 120.0) -> ProofPool:
    """A pool over the workers of a folder, started where there are none."""
    limits = Limits(prove_seconds=prove_seconds, load_seconds=300.0)
    return ProofPool.processes(folder, ["cpu"] * count, limits, IDLE_SECONDS)


def pids(folder: Path) -> dict[str, int]:
    """Process by worker, of those that answer or that hang."""
    return {name: said["pid"] for name, said in workers_at(folder).items()}


@contextmanager
def no_worker_left(folder: Path) -> Iterator[Path]:
    """The folder; whatever listens there in the end is ended."""
    try:
        yield folder
    finally:
        stop_workers(folder)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still for the time of the block, if it lives that long."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)
