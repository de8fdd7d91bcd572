"""Asking a node: the same bytes to this machine, an agent or a Kubernetes job."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from windrow import WindrowError
from windrow.engine.fleet.gpu_facts import DeviceFailed
from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES, BadRequest

_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "HF_HOME",
    "SSL_CERT_FILE",
    "WINDROW_NODE_MODELS",
    "WINDROW_BUCKET_ENDPOINT",
)
"""What a node's process sees of the environment: nothing that could hold a key."""

_CHUNK: Final = 1 << 20
_MOST_LINE: Final = 8192
STOP_SECONDS: Final = 5.0


class NodeError(WindrowError):
    """A node did not do what it was asked."""


class NodeUnreachable(NodeError):
    """A node cannot be reached, or went away before its answer was whole."""


class NodeTimedOut(NodeError):
    """A node did not answer within the time it had."""


class NodeAnswerTooLarge(NodeError):
    """A node's answer is larger than it may be."""


class NodeRefused(NodeError):
    """A node refuses the request or its caller."""


class ForgedAnswer(NodeError):
    """An answer does not come from the node that was asked, or is not to what was asked."""


class TaskFailed(NodeError):
    """A node tried and failed. reason: the short name of its own error; detail: its words."""

    def __init__(self, node: str, task: str, reason: str, detail: str) -> None:
        super().__init__(f"node {node} failed at {task}: {reason}: {detail}")
        self.reason, self.detail = reason, detail


class NodeBusy(WindrowError):
    """Another run asks the same node, and went on longer than one could wait."""


@dataclass(frozen=True)
class Answer:
    """body: as the task made it. seconds: by the asker's clock, the way there and back included."""

    body: bytes
    seconds: float


class NodeAccess(Protocol):
    """One node that can be asked."""

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """The node's answer to a task. Raises NodeError."""
        ...

    def close(self) -> None:
        """Let go of what asking needed."""
        ...


class LocalNode:
    """This machine, asked through a process of its own; one task at a time."""

    def __init__(self, name: str, variables: Mapping[str, str] | None = None) -> None:
        """variables: what its process sees where this one's environment does not say."""
        self.name = name
        self._variables = dict(variables or {})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """See NodeAccess. A process that hangs, dies or babbles is replaced at the next task."""
        if len(request) > MAX_REQUEST_BYTES:
            raise BadRequest(f"a request for {task} has {len(request)} bytes")
        with self._lock:
            process = self._started()
            began = time.monotonic()
            try:
                return self._exchange(process, task, request, began + timeout, max_bytes, began)
            except TaskFailed as error:
                if error.reason == DeviceFailed.__name__:
                    self._stop()  # after a CUDA error, a process can use no card any more
                raise
            except BaseException:
                self._stop()
                raise

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "windrow.resources.fleet.node_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._variables
                | {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,
                bufsize=0,
            )
        return self._process

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        task: str,
        request: bytes,
        deadline: float,
        max_bytes: int,
        began: float,
    ) -> Answer:
        if process.stdin is None or process.stdout is None:
            raise NodeUnreachable(f"node {self.name} has no way to be asked")
        line = json.dumps({"task": task, "bytes": len(request)}).encode() + b"\n"
        try:
            process.stdin.write(line + request)
        except OSError as error:
            raise NodeUnreachable(f"node {self.name} does not take {task}: {error}") from error
        reader = _Reader(process.stdout.fileno(), deadline, f"node {self.name} at {task}")
        head = reader.line()
        if not head.get("ok"):
            raise TaskFailed(self.name, task, str(head.get("reason")), str(head.get("detail")))
        size = head.get("bytes")
        if not isinstance(size, int) or size < 0:
            raise NodeUnreachable(f"node {self.name} does not say how long its answer is")
        if size > max_bytes:
            raise NodeAnswerTooLarge(
                f"node {self.name} answers {task} with {size} bytes; {max_bytes} are read"
            )
        body = reader.exactly(size)
        return Answer(body, time.monotonic() - began)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # A process that waits inside a driver ends only when the driver lets it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


class _Reader:
    """Reads a pipe until a deadline."""

    def __init__(self, descriptor: int, deadline: float, what: str) -> None:
        self._descriptor = descriptor
        self._deadline = deadline
        self._what = what
        self._rest = b""

    def line(self) -> dict[str, object]:
        while b"\n" not in self._rest:
            if len(self._rest) > _MOST_LINE:
                raise NodeAnswerTooLarge(f"{self._what} answers without an end")
            self._rest += self._some(_CHUNK)
        head, _, self._rest = self._rest.partition(b"\n")
        found = json.loads(head)
        if not isinstance(found, dict):
            raise NodeUnreachable(f"{self._what} answers no JSON object")
        return found

    def exactly(self, size: int) -> bytes:
        parts = [self._rest]
        left = size - len(self._rest)
        while left > 0:
            part = self._some(min(left, _CHUNK))
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _some(self, most: int) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            if not selector.select(max(0.0, self._deadline - time.monotonic())):
                raise NodeTimedOut(f"{self._what} did not answer in time")
        part = os.read(self._descriptor, most)
        if not part:
            raise NodeUnreachable(f"{self._what} ended before its answer was whole")
        return part
