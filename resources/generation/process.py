"""A generation server's process: started, found again, watched, stopped; it outlives the run.

Starting one takes a minute on a GPU, so a run leaves it behind for the next: a state file says
which process it is and what it was started with. A server is a session of its own, whose members
die together, and is given no secret of this process's environment.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from windrow.resources.files import naming_disk_errors, published
from windrow.resources.generation.client import GenerationServerError
from windrow.resources.locks import file_lock
from windrow.resources.secret import Secret

MAX_LOG_BYTES: Final = 16 * 1024 * 1024
KEPT_LOG_BYTES: Final = 1024 * 1024
QUOTED_LINES: Final = 15
GRACE_SECONDS: Final = 5.0
KILL_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.25
_SAME_START_SECONDS: Final = 1.0
_PASSED_ON: Final = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|XDG_\w+|SSL_CERT_\w+|"
    r"(CUDA|NVIDIA|NCCL|GLOO|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|OMP|MKL|HF|SGLANG|SGL|VLLM)_\w+"
)
_SECRET_NAME: Final = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL")


class ServerStartFailed(GenerationServerError):
    """A generation server ended, or was not ready in time, when it was started."""


class ServerWouldNotStop(GenerationServerError):
    """A generation server survives being killed."""


class PortTaken(GenerationServerError):
    """Another program listens where a server should."""


@dataclass(frozen=True)
class RunningServer:
    """Which process a server is. started: its creation time; identity: what it was started with.

    gpus: its CUDA_VISIBLE_DEVICES; None shows it all GPUs.
    """

    pid: int
    started: float
    identity: str
    gpus: str | None = None


class ServerProcess:
    """At most one server of a name in a folder; processes agree on it through the state file."""

    def __init__(
        self,
        name: str,
        home: Path,
        secrets: Sequence[Secret] = (),
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """secrets: what the server knows and no error may quote from its log.

        grace_seconds: between being asked to end and being killed.
        """
        self._grace_seconds = grace_seconds
        self.name = name
        self.log = home / f"{name}.log"
        self._home = home
        self._state = home / f"{name}.json"
        self._secrets = [secret.reveal() for secret in secrets]
        self._child: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs from starting or stopping the server meanwhile."""
        with file_lock(self._home / f"{self.name}.lock"):
            yield

    def running(self) -> RunningServer | None:
        """The server, if its first process lives; whether it answers is another question."""
        if self._child is not None:
            self._child.poll()  # or it stays behind as a zombie
        recorded = self._recorded()
        return recorded if recorded is not None and _alive(recorded) else None

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        identity: str,
        *,
        ready: Callable[[], object],
        seconds: float,
    ) -> None:
        """Start the server and wait until it is ready; whatever an earlier start left is stopped.

        environment: in addition to what every server is given; ready: raises
        GenerationServerError until the server can be used.
        Raises ServerStartFailed with the end of the log, ServerWouldNotStop, DiskFull, PathRefused.
        """
        self.stop()
        self._rotate(0)
        with naming_disk_errors(self.log):
            self._home.mkdir(parents=True, exist_ok=True)
            # 0600: servers write their arguments, keys among them, into their log.
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        variables = _environment() | dict(environment)
        try:
            self._child = subprocess.Popen(
                argv,
                env=variables,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerStartFailed(
                f"{self.name} cannot be started: {argv[0]}: {error.strerror}; install the server "
                "there or name another interpreter"
            ) from error
        finally:
            os.close(log)
        try:
            self._record(identity, variables.get("CUDA_VISIBLE_DEVICES"))
            self._wait(ready, seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the server, gently first. Raises ServerWouldNotStop."""
        recorded = self._recorded()
        if recorded is not None:
            for first in [each for each in _members(recorded) if each.pid == recorded.pid]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    first.terminate()
                psutil.wait_procs([first], timeout=self._grace_seconds)
            rest = _members(recorded)
            for member in rest:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            _, left = psutil.wait_procs(rest, timeout=KILL_SECONDS)
            if left:
                raise ServerWouldNotStop(
                    f"{self.name}: processes {sorted(member.pid for member in left)} survive "
                    "SIGKILL, most likely inside a GPU driver; the machine needs a restart"
                )
            self._state.unlink(missing_ok=True)
        if self._child is not None:
            self._child.wait()
            self._child = None

    def trim_log(self) -> None:
        """Hold the log to its size: the end of a larger one is kept beside it."""
        self._rotate(MAX_LOG_BYTES)

    def last_lines(self) -> str:
        """The end of the log, without the secrets the server knows."""
        if not self.log.exists():
            return "no log was written"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 64 * 1024))
            text = file.read().decode("utf-8", errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, "(hidden)")
        return "\n".join(line[:500] for line in text.splitlines()[-QUOTED_LINES:])

    def _wait(self, ready: Callable[[], object], seconds: float) -> None:
        child, until = self._child, time.monotonic() + seconds
        while child is not None:
            code = child.poll()
            if code is not None:
                end = signal.Signals(-code).name if code < 0 else f"status {code}"
                raise ServerStartFailed(
                    f"{self.name} ended with {end} while it started; {self.log} ends with:\n"
                    f"{self.last_lines()}"
                )
            try:
                ready()
                return
            except GenerationServerError as error:
                if time.monotonic() > until:
                    raise ServerStartFailed(
                        f"{self.name} was not ready within {seconds:.0f} s ({error}); {self.log} "
                        f"ends with:\n{self.last_lines()}"
                    ) from error
            time.sleep(_POLL_SECONDS)

    def _record(self, identity: str, gpus: str | None) -> None:
        if self._child is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                started = psutil.Process(self._child.pid).create_time()
                with published(self._state, replace=True) as path:
                    record = RunningServer(self._child.pid, started, identity, gpus)
                    path.write_text(json.dumps(asdict(record)))

    def _recorded(self) -> RunningServer | None:
        try:
            return RunningServer(**json.loads(self._state.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            self._state.unlink(missing_ok=True)  # of another version; nothing can be told from it
            return None

    def _rotate(self, most: int) -> None:
        """Keep the last part of a log that is larger than `most` beside it, and empty it.

        The server goes on writing: its descriptor appends, wherever the end now is.
        """
        if self.log.exists() and self.log.stat().st_size > most:
            with naming_disk_errors(self.log), self.log.open("r+b") as file:
                file.seek(max(0, self.log.stat().st_size - KEPT_LOG_BYTES))
                with published(self.log.with_suffix(".log.1"), replace=True) as path:
                    path.touch(mode=0o600)
                    path.write_bytes(file.read())
                file.truncate(0)


def require_free_port(host: str, port: int) -> None:
    """Raises PortTaken; a stranger's answer there would be taken for the server's."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"{host}:{port} cannot be listened on ({error.strerror}); another program has the "
                "port, stop it or give the generation server another one"
            ) from error


def _alive(server: RunningServer) -> bool:
    try:
        process = psutil.Process(server.pid)
        same = abs(process.create_time() - server.started) < _SAME_START_SECONDS
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _members(server: RunningServer) -> list[psutil.Process]:
    """The living processes of the server's session, its first one dead or alive."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            started = process.create_time()
            if process.pid == server.pid and abs(started - server.started) >= _SAME_START_SECONDS:
                return []  # the number went to a stranger, so nothing of the session is left
            if (
                os.getsid(process.pid) == server.pid
                and started >= server.started - _SAME_START_SECONDS
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def _environment() -> dict[str, str]:
    """What a server needs of this process's environment: no wallet, bucket or tracker secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if _PASSED_ON.fullmatch(name) and not _SECRET_NAME.search(name)
    }
