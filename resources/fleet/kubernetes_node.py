"""A node of a cluster, asked through a pod pinned to it."""

import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesContextData,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    encode_param,
)

from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES, BadRequest
from windrow.resources.fleet.kubernetes_cluster import Cluster, PodInput, PodLog
from windrow.resources.fleet.kubernetes_job import (
    CONTAINER,
    PodEvicted,
    PodFailed,
    PodShape,
    manifest,
    problem_of,
)
from windrow.resources.fleet.kubernetes_messages import Arriving, pipes_message, request_line
from windrow.resources.fleet.nodes import (
    Answer,
    ForgedAnswer,
    NodeError,
    NodeTimedOut,
    NodeUnreachable,
    TaskFailed,
)

START_SECONDS: Final = 600.0
"""How long a pod may take to begin: its image may have to be pulled."""
KEEP_SECONDS: Final = 120.0
"""How long it waits for the next question of a verification."""
POLL_SECONDS: Final = 1.0
LAST_SECONDS: Final = 5.0
"""How long the log of a pod that ended is still read."""
ALIVE_SECONDS: Final = 20.0
_LAST_LINES: Final = 8


class KubernetesNode:
    """A node of a cluster. One pod answers all questions of a verification, as an agent would.

    What a pod committed to is in its memory when it is opened, and the time of an answer is that
    from question to answer: the pod has begun, and waits, before it is told anything.
    """

    def __init__(
        self,
        name: str,
        *,
        cluster: Cluster,
        node: str,
        shape: PodShape,
        start_seconds: float = START_SECONDS,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self.name = name
        self._cluster = cluster
        self._node = node
        self._shape = shape
        self._start_seconds = start_seconds
        self._keep_seconds = keep_seconds
        self._lock = threading.RLock()
        self._pod: _Pod | None = None
        self._timer: threading.Timer | None = None

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """See NodeAccess; timeout runs once the pod has begun. After any error the pod is gone,
        unless the task itself failed. Raises errors of `kubernetes_job` and `kubernetes_cluster`.
        """
        if len(request) > MAX_REQUEST_BYTES:
            raise BadRequest(f"a request for {task} has {len(request)} bytes")
        with self._lock:
            self._stop_timer()
            try:
                pod = self._started()
                return pod.ask(task, request, timeout=timeout, max_bytes=max_bytes)
            except TaskFailed:
                raise
            except BaseException as error:
                self._end_after(error)
                raise
            finally:
                self._expire_later()

    def close(self) -> None:
        """Delete the pod. Raises ClusterUnreachable, ClusterRefused."""
        with self._lock:
            self._stop_timer()
            self._end()

    def _started(self) -> "_Pod":
        if self._pod is None:
            self._cluster.check_node(self._node)
            self._pod = _Pod(self.name, self._node, self._cluster, self._shape)
            self._pod.start(self._start_seconds)
        return self._pod

    def _end(self) -> None:
        pod, self._pod = self._pod, None
        if pod is not None:
            pod.end()

    def _end_after(self, error: BaseException) -> None:
        """Where deleting fails too, the first error stands and says so: the job ends by itself."""
        try:
            self._end()
        except NodeError as another:
            error.add_note(f"the pod could not be deleted either: {another}")

    def _expire_later(self) -> None:
        if self._pod is None:
            return
        timer = threading.Timer(self._keep_seconds, lambda: self._expire(timer))
        timer.daemon = True
        self._timer = timer
        timer.start()

    def _expire(self, timer: threading.Timer) -> None:
        with self._lock:
            if self._timer is timer:  # else somebody asked while it waited for the lock
                with contextlib.suppress(NodeError):  # it ends with its input, deleted or not
                    self._end()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Pod:
    """A job with its pod, its log and its input."""

    def __init__(self, name: str, node: str, cluster: Cluster, shape: PodShape) -> None:
        self._name = name
        self._node = node
        self._cluster = cluster
        self._shape = shape
        self._job = f"windrow-{name[:40]}-{secrets.token_hex(4)}"
        self._log: PodLog | None = None
        self._input: PodInput | None = None
        self._last: deque[str] = deque(maxlen=_LAST_LINES)

    def start(self, seconds: float) -> None:
        """Make the job, and wait until its program waits for requests."""
        where = f"node {self._name}"
        until = time.monotonic() + seconds
        self._cluster.create_job(manifest(self._job, self._node, self._shape, self._environment()))
        pod = self._running(where, until)
        if pod.spec.node_name != self._node:
            raise ForgedAnswer(f"{where}: its pod was put on {pod.spec.node_name} by the cluster")
        self._log = self._cluster.log(pod.metadata.name)
        for method, _ in self._messages(self._log, where, until):
            if method == "opened":
                break
        self._input = self._cluster.attach(pod.metadata.name, CONTAINER)

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        if self._log is None or self._input is None:
            raise NodeUnreachable(f"node {self._name}: its pod has not begun")
        ask = secrets.token_hex(8)
        arriving = Arriving(self._name, task, ask, max_bytes)
        line = request_line(ask, task, request)
        began = time.monotonic()
        self._input.write(line)
        where = f"node {self._name} at {task}"
        for method, params in self._messages(self._log, where, began + timeout):
            if method == "report_custom_message":
                body = arriving.take(params)
                if body is not None:
                    return Answer(body, time.monotonic() - began)
        raise NodeUnreachable(f"{where}: its log ended")

    def end(self) -> None:
        """Close everything, and delete the job whatever becomes of that."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._cluster.delete_job, self._job)
            for part in (self._log, self._input):
                if part is not None:
                    stack.callback(part.close)

    def _environment(self) -> dict[str, str]:
        """What tells the pod's program where its context is, and where messages go."""
        context: PipesContextData = {
            "asset_keys": None,
            "code_version_by_asset_key": None,
            "provenance_by_asset_key": None,
            "partition_key": self._name,
            "partition_key_range": None,
            "partition_time_window": None,
            "run_id": self._job,
            "job_name": None,
            "retry_number": 0,
            "extras": {},
        }
        messages = {PipesDefaultMessageWriter.STDIO_KEY: PipesDefaultMessageWriter.STDOUT}
        return {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param(
                {PipesDefaultContextLoader.DIRECT_KEY: context}
            ),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(messages),
        }

    def _running(self, where: str, until: float) -> Any:
        """The V1Pod, once its container runs; or has run, and its log says why no longer."""
        while True:
            pod = self._cluster.pod_of(self._job)
            if pod is not None:
                states = [one.state for one in pod.status.container_statuses or []]
                problem = problem_of(pod, where)
                if isinstance(problem, PodFailed) and any(state.terminated for state in states):
                    return pod
                if problem is not None:
                    raise problem
                if any(state.running for state in states):
                    return pod
            if time.monotonic() > until:
                raise NodeTimedOut(
                    f"{where}: its pod did not begin in time. The events of namespace "
                    f"{self._cluster.namespace} say why: `kubectl get events`"
                )
            time.sleep(POLL_SECONDS)

    def _messages(
        self, log: PodLog, where: str, until: float
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Messages of the log until the deadline, or until the pod can send no more."""
        looked = alive = time.monotonic()
        problem: NodeError | None = None
        while True:
            now = time.monotonic()
            if now > until:
                raise NodeTimedOut(f"{where} did not answer in time")
            line = log.line(min(POLL_SECONDS, until - now))
            if line is not None:
                message = pipes_message(line)
                if message is not None:
                    yield message
                elif line:
                    self._last.append(line[:200].decode(errors="replace"))
            if self._input is not None and now - alive > ALIVE_SECONDS:
                self._input.write(b"\n")  # or something on the way takes silence for the end
                alive = now
            if problem is not None and (line is None or now > looked + LAST_SECONDS):
                raise self._with_last_lines(problem)
            if problem is None and (line is None or now > looked + POLL_SECONDS):
                problem, looked = self._problem(where), now

    def _problem(self, where: str) -> NodeError | None:
        pod = self._cluster.pod_of(self._job)
        if pod is None:
            return PodEvicted(f"{where}: its pod is gone: somebody or the cluster deleted it")
        return problem_of(pod, where)

    def _with_last_lines(self, problem: NodeError) -> NodeError:
        if isinstance(problem, PodFailed) and self._last:
            return PodFailed(f"{problem}; its log ends: {' / '.join(self._last)[-1500:]}")
        return problem
