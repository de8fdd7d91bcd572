"""The node agent: answers tasks for callers on its list, over HTTP.

Requests carry Chutes' headers with a signature over method, path and body (chutes §5); each
signature is good once, for half a minute, and for the machine that its path names by the agent's
key: another of the same operator's refuses it. Strangers, replays and bodies that are large or slow
get a line. Answers are signed by the agent's own key. One task runs at a time; another gets 429.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from windrow import WindrowError
from windrow.engine.fleet.frames import to_json
from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES, TASKS
from windrow.networks.chutes.signing import MINER_SECONDS, SIGNATURE, strict_problem
from windrow.resources.fleet.agent_identity import answer_text, public_half
from windrow.resources.fleet.nodes import NodeAccess, TaskFailed
from windrow.resources.guarded_server import Bodies, BodyRefused

_log = logging.getLogger(__name__)

ANSWER_SIGNATURE: Final = "X-Windrow-Signature"
MOST_SECONDS: Final = 3600.0
MOST_ANSWER: Final = 1 << 30
MOST_BODIES: Final = 32 * MAX_REQUEST_BYTES
MOST_REMEMBERED: Final = 100_000


class SeenSignatures:
    """Signatures used while they are valid; bounded: a flood is refused, and none forgotten."""

    def __init__(self, clock: Callable[[], float], seconds: float = 2.0 * MINER_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def first_use(self, signature: str) -> bool:
        """Whether a verified signature was not used before; from now on it was.

        What counts is its 64 bytes: the same ones can be spelled with blanks and in either case.
        """
        now, spent = self._clock(), bytes.fromhex(signature)
        with self._lock:
            while self._seen and next(iter(self._seen.values())) < now - self._seconds:
                self._seen.popitem(last=False)
            if spent in self._seen or len(self._seen) >= MOST_REMEMBERED:
                return False
            self._seen[spent] = now
            return True


def agent_app(
    node: NodeAccess,
    *,
    hotkey: str,
    callers: Collection[str],
    key: Ed25519PrivateKey,
    name: str | None = None,
    clock: Callable[[], float] = time.time,
    body_seconds: float = MINER_SECONDS,
) -> Starlette:
    """The agent of a node. hotkey: whom it answers for; callers: hotkeys that may ask.

    name: of the node in fleet.yaml; with one, questions under another name are refused too.
    body_seconds: that a request may take to arrive; its signature is good for no longer.
    """
    seen = SeenSignatures(clock)
    bodies = Bodies(MOST_BODIES)
    busy = threading.Lock()
    public = public_half(key)

    def signed(request: Request, status: int, body: bytes) -> Response:
        text = answer_text(request.headers.get(SIGNATURE, ""), status, body)
        headers = {ANSWER_SIGNATURE: key.sign(text).hex()}
        return Response(body, status, headers, media_type="application/octet-stream")

    def refused(request: Request, status: int, reason: str, detail: str) -> Response:
        return signed(request, status, to_json({"reason": reason, "detail": detail}))

    async def ask(request: Request) -> Response:
        try:
            body = await bodies.read(request, most=MAX_REQUEST_BYTES, seconds=body_seconds)
        except BodyRefused as error:
            return refused(request, error.status, type(error).__name__, str(error))
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        problem = strict_problem(
            request.headers,
            miner=hotkey,
            signers=callers,
            method=request.method,
            path=path,
            body=body,
            clock=clock(),
        )
        if problem is None and not seen.first_use(request.headers[SIGNATURE]):
            problem = "the request was answered before"
        if problem is None:
            problem = _for_another(request, public, name)
        if problem is not None:
            return refused(request, 401, "NotAllowed", problem)
        task = request.path_params["task"]
        if task not in TASKS:
            return refused(request, 404, "UnknownTask", f"this agent does {', '.join(TASKS)}")
        if not busy.acquire(blocking=False):
            return refused(request, 429, "Busy", "the node is at another task")
        try:
            answer = await run_in_threadpool(
                node.ask, task, body, timeout=MOST_SECONDS, max_bytes=MOST_ANSWER
            )
        except TaskFailed as error:
            return refused(request, 422, error.reason, error.detail)
        except WindrowError as error:
            return refused(request, 500, type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001 - unsigned, a defect of ours would look forged
            _log.exception("%s failed", task)
            return refused(request, 500, type(error).__name__, "a defect; the agent's log has it")
        finally:
            busy.release()
        return signed(request, 200, answer.body)

    async def ping(request: Request) -> Response:
        return signed(request, 200, b"")

    return Starlette(
        routes=[
            Route("/ping", ping, methods=["GET"]),
            Route("/tasks/{task}", ask, methods=["POST"]),
        ]
    )


def _for_another(request: Request, key: str, name: str | None) -> str | None:
    """Why a caller's request is not for this machine, or None. Both names are in what is signed."""
    node, agent = request.query_params.get("node", ""), request.query_params.get("agent")
    if agent is None:
        return "the request names no agent; bring Windrow up to date where it is asked from"
    if agent != key:
        return "the request is for another agent than this one"
    if name is not None and node != name:
        return f"the request is for node {node[:80]!r}, and this machine is {name}"
    return None
