"""The part of the Kubernetes API that asking a node takes, with named errors and bounded reads."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes
import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from websocket import WebSocketException

from windrow import WindrowError
from windrow.resources.fleet.kubernetes_messages import MAX_LINE
from windrow.resources.fleet.nodes import NodeRefused, NodeUnreachable

TIMEOUT: Final = (5.0, 20.0)
"""Seconds to connect, and between two reads, of every call but the log's."""
LOG_READ_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 30
"""How much of a log is read again after it broke off."""
_WAITING_LINES: Final = 256
_FRAME_BYTES: Final = 32 << 10


class NoCluster(WindrowError):
    """There is no usable configuration of a cluster."""


class ClusterUnreachable(NodeUnreachable):
    """The cluster's API does not answer."""


class ClusterRefused(NodeRefused):
    """The cluster's API refuses a call."""


class NotInCluster(NodeUnreachable):
    """The cluster has no such node, or it is not ready."""


class Cluster:
    """One namespace of a cluster. api: a client of the `kubernetes` package."""

    def __init__(self, api: kubernetes.client.ApiClient, namespace: str = "default") -> None:
        self.namespace = namespace
        self._configuration = api.configuration
        self._core = kubernetes.client.CoreV1Api(api)
        self._batch = kubernetes.client.BatchV1Api(api)

    @classmethod
    def configured(
        cls, namespace: str = "default", kubeconfig: Path | None = None, context: str | None = None
    ) -> "Cluster":
        """The cluster this process runs in, else the kubeconfig's. Raises NoCluster."""
        configuration = kubernetes.client.Configuration()
        try:
            if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                kubernetes.config.load_incluster_config(configuration)
            else:
                kubernetes.config.load_kube_config(
                    str(kubeconfig) if kubeconfig else None, context, configuration
                )
        except (ConfigException, OSError) as error:
            raise NoCluster(
                f"no cluster is configured: {error}. Name a kubeconfig, or run inside the cluster"
            ) from error
        return cls(kubernetes.client.ApiClient(configuration), namespace)

    def check_node(self, node: str) -> None:
        """Whether a node is there and ready. Raises NotInCluster."""
        with _named(f"looking for node {node}"):
            found = self._core.read_node(node, _request_timeout=TIMEOUT)
        conditions = {one.type: one for one in found.status.conditions or []}
        ready = conditions.get("Ready")
        if ready is None or ready.status != "True":
            why = "says nothing" if ready is None else f"{ready.reason}: {ready.message}"
            raise NotInCluster(f"node {node} is not ready ({why}); see `kubectl describe node`")

    def create_job(self, manifest: dict[str, Any]) -> None:
        """Make a job."""
        with _named(f"making job {manifest['metadata']['name']}"):
            self._batch.create_namespaced_job(self.namespace, manifest, _request_timeout=TIMEOUT)

    def pod_of(self, job: str) -> Any:
        """The V1Pod of a job, or None while it has none."""
        with _named(f"looking for the pod of {job}"):
            pods = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"windrow/job={job}", _request_timeout=TIMEOUT
            ).items
        return pods[0] if pods else None

    def delete_job(self, job: str) -> None:
        """Remove a job and its pod; one that is gone is no error."""
        with _named(f"deleting job {job}"):
            try:
                self._batch.delete_namespaced_job(
                    job,
                    self.namespace,
                    propagation_policy="Background",
                    _request_timeout=TIMEOUT,
                )
            except ApiException as error:
                if error.status != 404:
                    raise

    def log(self, pod: str) -> "PodLog":
        """A pod's log from its beginning, followed in a thread until closed."""
        return PodLog(self._core, self.namespace, pod)

    def attach(self, pod: str, container: str) -> "PodInput":
        """A pod's standard input."""
        # A client of its own: the package swaps a client's request method while it connects.
        api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(self._configuration))
        opened: queue.Queue[PodInput | WindrowError] = queue.Queue()

        def connect() -> None:
            try:
                with _named(f"attaching to pod {pod}"):
                    socket = kubernetes.stream.stream(
                        api.connect_get_namespaced_pod_attach,
                        pod,
                        self.namespace,
                        container=container,
                        stdin=True,
                        stdout=False,
                        stderr=False,
                        tty=False,
                        _preload_content=False,
                    )
                socket.sock.settimeout(TIMEOUT[1])
                opened.put(PodInput(socket))
            except WindrowError as error:
                opened.put(error)

        # In a thread, for the package cannot be told to give up.
        threading.Thread(target=connect, daemon=True, name=f"attach to {pod}").start()
        try:
            found = opened.get(timeout=sum(TIMEOUT))
        except queue.Empty:
            raise ClusterUnreachable(f"attaching to pod {pod}: no answer in time") from None
        if isinstance(found, WindrowError):
            raise found
        return found


class PodInput:
    """Standard input of a container; it ends when this is closed or its holder dies."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def write(self, data: bytes) -> None:
        """Send bytes. Raises ClusterUnreachable."""
        with _named("writing to the pod"):
            for at in range(0, len(data), _FRAME_BYTES):
                self._socket.write_stdin(data[at : at + _FRAME_BYTES])

    def close(self) -> None:
        """End the input."""
        with contextlib.suppress(OSError, WebSocketException):
            self._socket.close(timeout=1)


class PodLog:
    """Lines of a pod's log. Opened again where it broke off, with some lines a second time."""

    def __init__(self, core: Any, namespace: str, pod: str) -> None:
        self._core = core
        self._namespace = namespace
        self._pod = pod
        self._lines: queue.Queue[bytes] = queue.Queue(_WAITING_LINES)
        self._closed = threading.Event()
        self._response: Any = None
        self._last = 0.0
        self._thread = threading.Thread(target=self._follow, daemon=True, name=f"log of {pod}")
        self._thread.start()

    def line(self, seconds: float) -> bytes | None:
        """The next line, or None where there is none in time. Never longer than MAX_LINE."""
        try:
            return self._lines.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop following."""
        self._closed.set()
        response = self._response
        if response is not None:
            # A stream that just ended has nothing to shut down, which is no OSError.
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                response.shutdown()
        self._thread.join(2.0)

    def _follow(self) -> None:
        while not self._closed.is_set():
            # What went wrong shows in the pod's state, which the asker looks at meanwhile.
            with contextlib.suppress(ApiException, urllib3.exceptions.HTTPError, OSError):
                self._response = self._core.read_namespaced_pod_log(
                    self._pod,
                    self._namespace,
                    follow=True,
                    **self._since(),
                    _preload_content=False,
                    _request_timeout=(TIMEOUT[0], LOG_READ_SECONDS),
                )
                for line in _lines(self._response):
                    if not self._put(line):
                        return
                    self._last = time.monotonic()
            self._closed.wait(0.5)

    def _since(self) -> dict[str, int]:
        if not self._last:
            return {}
        return {"since_seconds": int(time.monotonic() - self._last) + AGAIN_SECONDS}

    def _put(self, line: bytes) -> bool:
        while not self._closed.is_set():
            try:
                self._lines.put(line, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


def _lines(response: Any) -> Iterator[bytes]:
    """Lines of a stream; one that is longer than any message is left out."""
    rest, too_long = b"", False
    for read in response.stream(1 << 16):
        *whole, rest = (rest + read).split(b"\n")
        for line in whole:
            if not too_long and len(line) <= MAX_LINE:
                yield line
            too_long = False
        if len(rest) > MAX_LINE:
            rest, too_long = b"", True


@contextlib.contextmanager
def _named(act: str) -> Iterator[None]:
    """Turns what the client raises into this module's errors."""
    try:
        yield
    except ApiException as error:
        said = str(error.body or error.reason)[:300]
        match error.status:
            case 404:
                raise NotInCluster(f"{act}: the cluster has none ({said})") from error
            case 401 | 403 | 409 | 422:
                raise ClusterRefused(
                    f"{act}: the cluster refuses ({error.status}): {said}. "
                    "Windrow needs these rights in the namespace: create and delete jobs; get and "
                    "list pods and pods/log; create and get pods/attach. In the cluster: get nodes"
                ) from error
            case _:
                raise ClusterUnreachable(
                    f"{act}: the cluster fails ({error.status}): {said}"
                ) from error
    except (urllib3.exceptions.HTTPError, WebSocketException, OSError) as error:
        raise ClusterUnreachable(
            f"{act}: the cluster's API does not answer ({type(error).__name__}: {str(error)[:200]})"
        ) from error
