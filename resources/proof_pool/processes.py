"""Proof workers as processes on this machine: found, started, asked and ended."""

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from windrow.engine.ports import ProofCancelled
from windrow.resources.locks import file_lock
from windrow.resources.proof_pool.client import WorkerDied, WorkerHung
from windrow.resources.proof_pool.frames import (
    PIECE,
    Incoming,
    MalformedFrame,
    decode,
    encode,
    send,
)
from windrow.resources.proof_pool.service import code_identity
from windrow.resources.proof_pool.unix_socket import (
    SUFFIX,
    ForeignWorker,
    check_name,
    connected,
    peer,
    private_folder,
)

HELLO_SECONDS: Final = 30.0
START_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.1
END_SECONDS: Final = 20.0
LOG_TAIL: Final = 600
KEPT_VARIABLES: Final = frozenset(
    {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH"}
)
KEPT_PREFIXES: Final = ("LC_", "CUDA_", "NVIDIA_", "PYTORCH_", "TORCH_", "TRITON_", "OMP_", "MKL_")

_log = logging.getLogger(__name__)


class ProcessHost:
    """One worker process, at a socket in a folder; any run that looks there finds it."""

    def __init__(
        self,
        folder: Path,
        name: str,
        device: str,
        environment: Mapping[str, str],
        idle_seconds: float,
        hello_seconds: float = HELLO_SECONDS,
    ) -> None:
        """device: as the worker sees it; environment: all of the worker's, see `scrubbed`."""
        self._folder, self._name, self._device = folder, check_name(name), device
        self._environment = dict(environment)
        self._idle_seconds = idle_seconds
        self._hello_seconds = hello_seconds
        self._worker: _Connection | None = None
        # Kept so that a worker that ends leaves no zombie; it may well outlive this process.
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"{self._name} ({self.log})"

    @property
    def log(self) -> Path:
        """What the worker printed."""
        return self._folder / f"{self._name}.log"

    def ask(self, frame: bytes, seconds: float, told_to_stop: threading.Event) -> bytes:
        """As `Host.ask`. Raises ForeignWorker too."""
        worker = self._worker or self._attach(told_to_stop)
        self._worker = worker
        try:
            return worker.ask(frame, seconds, told_to_stop)
        except WorkerDied as error:
            raise WorkerDied(f"{error}{self._last_words()}") from error
        except ProofCancelled:
            # The answer still comes, to a connection that nobody reads.
            self._worker = None
            worker.close()
            raise

    def replace(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def _attach(self, told_to_stop: threading.Event) -> "_Connection":
        with file_lock(private_folder(self._folder) / f"{self._name}.start"):
            found = _Connection.to(self._folder, self._name)
            if found is not None:
                if self._fits(found, told_to_stop):
                    return found
                found.kill()
            return self._start(told_to_stop)

    def _fits(self, worker: "_Connection", told_to_stop: threading.Event) -> bool:
        question = encode({"op": "hello"})
        try:
            said = decode(worker.ask(question, self._hello_seconds, told_to_stop)).header
        except (WorkerDied, WorkerHung, MalformedFrame) as error:
            _log.warning("proof worker %s is started anew: %s", self._name, error)
            return False
        except ProofCancelled:
            worker.close()
            raise
        if said.get("code") != code_identity() or said.get("device") != self._device:
            _log.info("proof worker %s is of other code or another device; it is ended", self._name)
            return False
        return True

    def _start(self, told_to_stop: threading.Event) -> "_Connection":
        command = [sys.executable, "-m", "windrow.resources.proof_pool.worker"]
        command += [str(self._folder), self._name, "--device", self._device]
        command += ["--idle-seconds", str(self._idle_seconds)]
        with self.log.open("wb") as log:
            # A session of its own: what ends the run must not end the worker.
            self._started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            worker = _Connection.to(self._folder, self._name)
            if worker is not None:
                if self._fits(worker, told_to_stop):
                    return worker
                worker.kill()
            if self._started.poll() is not None:
                raise WorkerDied(
                    f"the process ended with status {self._started.returncode} before it "
                    f"listened{self._last_words()}"
                )
            if told_to_stop.wait(POLL_SECONDS):
                raise ProofCancelled(f"told to stop while worker {self._name} started")
        self._started.kill()
        raise WorkerHung(f"the process did not listen within {START_SECONDS:.0f} s")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            text = self.log.read_text(errors="replace").strip()[-LOG_TAIL:]
            return f"; its log ends: {text}" if text else ""
        return ""


class _Connection:
    """A connection to a worker, and a hold on the very process that is at its other end."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.pid = peer(connection).pid
        self._process = os.pidfd_open(self.pid)

    @classmethod
    def to(cls, folder: Path, name: str) -> "_Connection | None":
        """None where no process listens. Raises ForeignWorker."""
        connection = connected(folder, name)
        if connection is None:
            return None
        if peer(connection).uid != os.getuid():
            connection.close()
            raise ForeignWorker(
                f"a process of user {peer(connection).uid} listens at {folder / name}{SUFFIX}; "
                "end it, or set WINDROW_HOME to a folder of your own"
            )
        try:
            return cls(connection)
        except ProcessLookupError:  # it ended between the two calls
            connection.close()
            return None

    def ask(self, frame: bytes, seconds: float, told_to_stop: threading.Event) -> bytes:
        """Raises WorkerDied, WorkerHung, ProofCancelled, MalformedFrame."""
        end = time.monotonic() + seconds
        incoming = Incoming()
        try:
            send(self._socket, frame, seconds)
            self._socket.settimeout(POLL_SECONDS)
            while time.monotonic() < end:
                if told_to_stop.is_set():
                    raise ProofCancelled("told to stop while a proof worker was at work")
                with contextlib.suppress(TimeoutError):
                    data = self._socket.recv(PIECE)
                    if not data:
                        raise WorkerDied(f"process {self.pid} hung up")
                    answer = incoming.take(data)
                    if answer is not None:
                        return answer
        except TimeoutError:
            pass
        except OSError as error:
            raise WorkerDied(f"process {self.pid} is gone ({error.strerror})") from error
        raise WorkerHung(f"process {self.pid} gave no answer in {seconds:g} s")

    def kill(self) -> None:
        """End the process and wait until it is gone. Raises WorkerHung where it stays."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        gone = poll.poll(1000 * END_SECONDS)
        self.close()
        if not gone:
            raise WorkerHung(f"process {self.pid} does not end; its device may be stuck")

    def close(self) -> None:
        if self._process >= 0:
            self._socket.close()
            os.close(self._process)
            self._process = -1


def stop_workers(folder: Path) -> list[str]:
    """End every worker that listens in a folder; returns their names."""
    ended = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        worker = _Connection.to(folder, path.stem)
        if worker is not None:
            worker.kill()  # it holds nothing that could be lost, and one that hangs heeds no less
            ended.append(path.stem)
        path.unlink(missing_ok=True)
    return ended


def workers_at(folder: Path, seconds: float = HELLO_SECONDS) -> dict[str, dict[str, Any]]:
    """What every worker that listens in a folder says of itself, by name; {} of one that hangs."""
    said: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        worker = _Connection.to(folder, path.stem)
        if worker is None:
            continue
        try:
            answer = worker.ask(encode({"op": "hello"}), seconds, threading.Event())
            said[path.stem] = decode(answer).header
        except (WorkerDied, WorkerHung, MalformedFrame):
            said[path.stem] = {}
        finally:
            worker.close()
    return said


def scrubbed(environment: Mapping[str, str], cuda_visible: str, threads: int) -> dict[str, str]:
    """A worker's environment: what finds Python and the GPU, and no secret of the run.

    cuda_visible: CUDA_VISIBLE_DEVICES, one GPU or empty. threads: of a forward pass on the CPU,
    where the run's own environment does not say.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }
    pinned = {"CUDA_VISIBLE_DEVICES": cuda_visible, "HF_HUB_OFFLINE": "1"}
    return {"OMP_NUM_THREADS": str(threads)} | kept | pinned
