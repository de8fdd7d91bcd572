"""Proofs from several workers at once, in this process, in others, or on other machines.

Workers hold no key: sketches and log-probs come back, and the run signs what it makes of them.
"""

import os
import queue
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.mining.in_flight import InFlight
from windrow.engine.ports import Proof
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.proof_pool.client import Limits, Placement, RemoteWorker
from windrow.resources.proof_pool.local import LocalModels, LocalWorker
from windrow.resources.proof_pool.processes import ProcessHost, scrubbed

IDLE_SECONDS = 1800.0


class NoSuchGpu(WindrowError):
    """A proof worker is to have a GPU that this process cannot see."""


class ProofWorker(Protocol):
    """One worker of a pool; several threads may call it, one at a time works."""

    def load(self, checkpoint: VerifiedCheckpoint, told_to_stop: threading.Event) -> Placement:
        """Have a checkpoint in memory. Raises as `load_checkpoint`, ProofCancelled."""
        ...

    def prove(
        self,
        checkpoint: VerifiedCheckpoint,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
        told_to_stop: threading.Event,
    ) -> list[Proof]:
        """As `engine.ports.Prover.prove`, with a checkpoint."""
        ...


class ProofPool:
    """Workers that share the proofs of a window: each call goes to one that is free."""

    def __init__(self, workers: Sequence[ProofWorker]) -> None:
        """Starts nothing; a worker starts, or is found, when it is first asked."""
        if not workers:
            raise ValueError("a proof pool needs a worker")
        self.workers = tuple(workers)
        self._free: queue.SimpleQueue[ProofWorker] = queue.SimpleQueue()
        for worker in workers:
            self._free.put(worker)

    @classmethod
    def in_process(cls, devices: Sequence[str]) -> "ProofPool":
        """A worker for every device named, "cpu" or "cuda:<n>", on threads of this process.

        Workers on one device share its model.
        """
        models = LocalModels()
        return cls([LocalWorker(models, device) for device in devices])

    @classmethod
    def processes(
        cls,
        folder: Path,
        devices: Sequence[str],
        limits: Limits | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> "ProofPool":
        """A process for every device named; "cuda:<n>" counts the GPUs that this one can see.

        folder: of their sockets and logs; runs that name it share the workers. idle_seconds:
        after which a worker that no run is connected to ends. Raises NoSuchGpu.
        """
        threads = max(1, (os.cpu_count() or 1) // len(devices)) if devices else 1
        hosts = []
        for number, device in enumerate(devices):
            if device == "cpu":
                name, inside, visible = f"cpu-{number}", "cpu", ""
            else:
                visible = _visible(device)
                name, inside = f"gpu-{re.sub('[^A-Za-z0-9]', '-', visible)[:60]}", "cuda:0"
            environment = scrubbed(os.environ, visible, threads)
            hosts.append(ProcessHost(folder, name, inside, environment, idle_seconds))
        return cls([RemoteWorker(host, limits or Limits()) for host in hosts])

    @classmethod
    def ray(
        cls, address: str, workers: int, device: str = "cuda:0", limits: Limits | None = None
    ) -> "ProofPool":
        """Actors of a Ray cluster, one GPU each, or one processor each with device "cpu".

        address: of the cluster, as `ray.init` takes it. The checkpoint cache must be a folder that
        all its machines share. Raises RayMissing.
        """
        from windrow.resources.proof_pool.ray_workers import RayHost

        hosts = [RayHost(address, number, device) for number in range(workers)]
        return cls([RemoteWorker(host, limits or Limits()) for host in hosts])

    def prover(self, checkpoint: VerifiedCheckpoint) -> "PoolProver":
        """Proves with a checkpoint, once every worker has loaded it. Raises as `load_checkpoint`,
        ProofWorkerLost."""
        told_to_stop = threading.Event()
        with ThreadPoolExecutor(len(self.workers), thread_name_prefix="load") as threads:
            try:
                loading = [threads.submit(w.load, checkpoint, told_to_stop) for w in self.workers]
                placements = [future.result() for future in loading]
            except BaseException:
                told_to_stop.set()
                raise
        return PoolProver(self, checkpoint, placements[0])

    def prove(
        self,
        checkpoint: VerifiedCheckpoint,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
        told_to_stop: threading.Event,
    ) -> list[Proof]:
        """By a worker that is free, waiting for one where none is."""
        worker = self._free.get()
        try:
            return worker.prove(checkpoint, sequences, prompt_lengths, coefficients, told_to_stop)
        finally:
            self._free.put(worker)


class PoolProver:
    """`engine.ports.Prover` over a pool and one checkpoint. placement: of its first worker."""

    def __init__(
        self, pool: ProofPool, checkpoint: VerifiedCheckpoint, placement: Placement
    ) -> None:
        self.placement = placement
        self._pool = pool
        self._checkpoint = checkpoint
        self._in_flight = InFlight()

    @property
    def lanes(self) -> int:
        """The pool's workers."""
        return len(self._pool.workers)

    def prove(
        self,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
    ) -> list[Proof]:
        """As `ModelProver.prove`. Raises ProofWorkerLost too."""
        with self._in_flight.call() as told_to_stop:
            return self._pool.prove(
                self._checkpoint, sequences, prompt_lengths, coefficients, told_to_stop
            )

    def cancel(self) -> None:
        """Stop waiting for the proofs in flight."""
        self._in_flight.cancel()


def _visible(device: str) -> str:
    """The entry of CUDA_VISIBLE_DEVICES that "cuda:<n>" means in this process."""
    number = int(device.removeprefix("cuda:"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(number)
    entries = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if number >= len(entries):
        raise NoSuchGpu(
            f"a proof worker is to have {device}, but CUDA_VISIBLE_DEVICES={visible!r} shows "
            f"{len(entries)}; name one of these, or show more"
        )
    return entries[number]
