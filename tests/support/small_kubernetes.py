"""A small server that speaks the part of the Kubernetes API that asking a node takes, for tests.

It has nodes with so much of each resource, and admits a pod as a kubelet does: one that names a
node not there is removed, one that asks for more than there is fails. A pod's container is a real
child process with the environment of its manifest and no other; its standard input comes over a
real websocket (v4.channel.k8s.io), and its output is the pod's log.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

TOKEN = "a-test-token"
_V4 = "v4.channel.k8s.io"


@dataclass
class Pod:
    """A pod as the API shows it, and the process of its container."""

    name: str
    manifest: dict[str, Any]
    status: dict[str, Any] = field(default_factory=lambda: {"phase": "Pending"})
    log: bytearray = field(default_factory=bytearray)
    process: asyncio.subprocess.Process | None = None
    killed_for: str = ""
    ended: bool = False

    @property
    def shown(self) -> dict[str, Any]:
        metadata = self.manifest["metadata"] | {"name": self.name, "namespace": "default"}
        return {"metadata": metadata, "spec": self.manifest["spec"], "status": self.status}

    def container(self, state: dict[str, Any]) -> None:
        self.status["containerStatuses"] = [
            {
                "name": "task",
                "image": "i",
                "imageID": "",
                "restartCount": 0,
                "ready": False,
                "state": state,
            }
        ]


@dataclass
class SmallKubernetes:
    """nodes: by name, how much each has. images: those that can be pulled. refuse: status by
    `METHOD kind`, e.g. {"POST jobs": 403}. cut: bytes after which a log's stream breaks off."""

    nodes: dict[str, dict[str, int]] = field(default_factory=dict)
    not_ready: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=lambda: {"windrow:1"})
    refuse: dict[str, int] = field(default_factory=dict)
    misplaced: str | None = None
    cut: int | None = None
    lost: bool = False
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    url: str = ""
    loop: asyncio.AbstractEventLoop | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def kill(self, reason: str) -> None:
        """End the container of the only pod, as the kernel or the kubelet would."""
        (pod,) = self.pods.values()
        pod.killed_for = reason
        assert pod.process is not None
        pod.process.send_signal(signal.SIGKILL)

    def remove(self) -> None:
        """Delete the only pod behind its asker's back."""
        self.kill("Error")
        self.pods.clear()


def _status(code: int, reason: str) -> Response:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "code": code}
    return JSONResponse(body, code)


class _Api:
    def __init__(self, state: SmallKubernetes) -> None:
        self.state = state

    def refusal(self, request: Request, kind: str) -> Response | None:
        self.state.seen.append(f"{request.method} {kind}")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized")
        code = self.state.refuse.get(f"{request.method} {kind}")
        return _status(code, "Forbidden") if code else None

    async def node(self, request: Request) -> Response:
        if refused := self.refusal(request, "nodes"):
            return refused
        name = request.path_params["name"]
        if name not in self.state.nodes:
            return _status(404, "NotFound")
        ready = "False" if name in self.state.not_ready else "True"
        condition = {"type": "Ready", "status": ready, "reason": "KubeletReady", "message": "m"}
        return JSONResponse({"metadata": {"name": name}, "status": {"conditions": [condition]}})

    async def create_job(self, request: Request) -> Response:
        if refused := self.refusal(request, "jobs"):
            return refused
        job = json.loads(await request.body())
        name = job["metadata"]["name"]
        if name in self.state.jobs:
            return _status(409, "AlreadyExists")
        if job["spec"]["template"]["spec"]["restartPolicy"] not in {"Never", "OnFailure"}:
            return _status(422, "Invalid")
        self.state.jobs[name] = job
        self._keep(self._run(name))
        return JSONResponse(job, 201)

    async def delete_job(self, request: Request) -> Response:
        if refused := self.refusal(request, "jobs"):
            return refused
        name = request.path_params["name"]
        if self.state.jobs.pop(name, None) is None:
            return _status(404, "NotFound")
        self.state.deleted.append(name)
        for pod in [one for one in self.state.pods.values() if one.name.startswith(f"{name}-")]:
            del self.state.pods[pod.name]
            if pod.process is not None and pod.process.returncode is None:
                pod.process.kill()
        return JSONResponse({"kind": "Status", "status": "Success"})

    async def list_pods(self, request: Request) -> Response:
        if refused := self.refusal(request, "pods"):
            return refused
        key, _, value = request.query_params["labelSelector"].partition("=")
        items = [
            pod.shown
            for pod in self.state.pods.values()
            if pod.manifest["metadata"]["labels"].get(key) == value
        ]
        return JSONResponse({"kind": "PodList", "items": items})

    async def log(self, request: Request) -> Response:
        if refused := self.refusal(request, "log"):
            return refused
        pod = self.state.pods.get(request.path_params["name"])
        if pod is None:
            return _status(404, "NotFound")
        return StreamingResponse(self._lines(pod), media_type="text/plain")

    async def _lines(self, pod: Pod) -> AsyncIterator[bytes]:
        at, cut = 0, self.state.cut
        self.state.cut = None
        while True:
            ended, end = pod.ended, len(pod.log)
            if cut is not None and end > cut:
                yield bytes(pod.log[at:cut])
                return
            if end > at:
                yield bytes(pod.log[at:end])
                at = end
            if ended:
                return
            await asyncio.sleep(0.02)

    async def attach(self, socket: WebSocket) -> None:
        pod = self.state.pods.get(socket.path_params["name"])
        authorised = socket.headers.get("authorization") == f"Bearer {TOKEN}"
        if pod is None or pod.process is None or not authorised:
            await socket.close()
            return
        await socket.accept(subprotocol=_V4)
        stdin = pod.process.stdin
        assert stdin is not None
        try:
            while True:
                message = await socket.receive_bytes()
                assert message[0] == 0
                stdin.write(message[1:])
                await stdin.drain()
        except (WebSocketDisconnect, ConnectionError):
            stdin.close()  # stdinOnce

    async def _run(self, job: str) -> None:
        """What the job controller and the kubelet do."""
        template = self.state.jobs[job]["spec"]["template"]
        pod = Pod(f"{job}-{uuid.uuid4().hex[:5]}", json.loads(json.dumps(template)))
        pod.manifest["spec"]["nodeName"] = self.state.misplaced or template["spec"]["nodeName"]
        self.state.pods[pod.name] = pod
        container = template["spec"]["containers"][0]
        has = self.state.nodes[template["spec"]["nodeName"]]
        for resource, amount in container["resources"]["requests"].items():
            if int(amount.removesuffix("Gi")) > has.get(resource, 0):
                pod.status = {"phase": "Failed", "reason": f"OutOf{resource}", "message": "Pod"}
                return
        if container["image"] not in self.state.images:
            for reason in ("ErrImagePull", "ImagePullBackOff"):
                pod.container({"waiting": {"reason": reason, "message": "not found"}})
                await asyncio.sleep(0.1)
            return
        own = {entry["name"]: entry["value"] for entry in container["env"]}
        own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
        pod.process = await asyncio.create_subprocess_exec(
            *container["command"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=own,
        )
        pod.status["phase"] = "Running"
        pod.container({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
        assert pod.process.stdout is not None
        while read := await pod.process.stdout.read(1 << 16):
            pod.log += read
        code = await pod.process.wait()
        self._ended(pod, 128 - code if code < 0 else code)

    def _ended(self, pod: Pod, code: int) -> None:
        reason = pod.killed_for or ("Completed" if code == 0 else "Error")
        if reason == "Evicted":
            pod.status = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
        else:
            pod.status["phase"] = "Failed" if code else "Succeeded"
            pod.container({"terminated": {"exitCode": code, "reason": reason}})
        pod.ended = True

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.state.tasks.add(task)
        task.add_done_callback(self.state.tasks.discard)


@contextlib.contextmanager
def small_kubernetes(**nodes: dict[str, int]) -> Iterator[SmallKubernetes]:
    """A running server with these nodes; what still runs in it is killed at the end."""
    state = SmallKubernetes({name.replace("_", "-"): has for name, has in nodes.items()})
    api = _Api(state)
    one = "/api/v1/namespaces/default/pods"
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    app = Starlette(
        routes=[
            Route("/api/v1/nodes/{name}", api.node),
            Route(jobs, api.create_job, methods=["POST"]),
            Route(jobs + "/{name}", api.delete_job, methods=["DELETE"]),
            Route(one, api.list_pods),
            Route(one + "/{name}/log", api.log),
            WebSocketRoute(one + "/{name}/attach", api.attach),
        ]
    )
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield state
    finally:
        for pod in state.pods.values():
            if pod.process is not None and pod.process.returncode is None:
                pod.process.kill()
        server.should_exit = True
        thread.join(10)
        listening.close()
