"""Cheats against how a node is asked, over real HTTP.

The network's verdict is that of its own rule on the same request; an answer over HTTP is
signed by nobody there, so whatever comes with status 200 is taken.
"""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from benchmarks.soundness.fleet_row import ACCEPTED, REFUSED, Row, outcome
from windrow.engine.fleet.facts import challenge
from windrow.networks.chutes.signing import (
    SignedRequest,
    network_miner_accepts,
    network_validator_accepts,
    to_agent,
    to_miner,
)
from windrow.resources.fleet.agent_identity import answer_text, path_of, public_half
from windrow.resources.fleet.agent_node import AgentNode
from windrow.resources.fleet.agent_service import agent_app
from windrow.resources.fleet.nodes import LocalNode, NodeAccess, NodeError
from windrow.resources.secret import Secret
from windrow.resources.wallet import DevelopmentWallet

OPERATOR: Final = DevelopmentWallet(Secret("//Operator"))
OTHER: Final = DevelopmentWallet(Secret("//OtherOperator"))
TASK: Final = "facts"
ASKED: Final = challenge()
DAY: Final = 86_400
NO_LIMIT: Final = "not looked at"


def rows() -> list[Row]:
    """Every cheat and its outcomes."""
    return [*_requests(), *_answers()]


@contextmanager
def served(app: Starlette) -> Iterator[int]:
    """An ASGI app on a port of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def agent(
    node: NodeAccess, key: Ed25519PrivateKey, wallet: DevelopmentWallet = OPERATOR
) -> Iterator[int]:
    """A real agent of this machine, for its operator."""
    app = agent_app(node, hotkey=wallet.hotkey, callers=[OPERATOR.hotkey], key=key)
    with served(app) as port:
        yield port


def path_to(key: Ed25519PrivateKey, task: str = TASK) -> str:
    """Where the node with this agent's key is asked."""
    return path_of(task, "n", public_half(key))


def signed(key: Ed25519PrivateKey, nonce: float = 0.0) -> SignedRequest:
    """A request of the operator's to a node; nonce: seconds from now."""
    when, path = int(time.time() + nonce), path_to(key)
    hotkey = OPERATOR.hotkey
    return to_agent(OPERATOR.sign, hotkey, hotkey, when, method="POST", path=path, body=ASKED)


def honest() -> list[Row]:
    """A request and an answer without a cheat: both are taken."""
    node = LocalNode("here")
    key = Ed25519PrivateKey.generate()
    with agent(node, key) as port:
        status = _posted(port, signed(key), path_to(key))
        network, said = _unsigned(port, key), _asked(port, key)
    node.close()
    return [
        Row("a request", _network(to_miner), outcome(status == 200), ""),
        Row("an answer", network, *said),
    ]


def _network(make: Callable[..., SignedRequest], *, nonce: float = 0.0) -> str:
    """Whether a miner's service of the network takes the same request."""
    hotkey, now = OPERATOR.hotkey, time.time()
    made = make(OPERATOR.sign, hotkey, hotkey, int(now + nonce), payload=ASKED)
    taken = network_miner_accepts(
        made.headers,
        miner=hotkey,
        signers=[hotkey],
        method="POST",
        purpose=None,
        body=made.body,
        clock=now,
    )
    return outcome(taken)


def _posted(port: int, request: SignedRequest, path: str) -> int:
    url = f"http://127.0.0.1:{port}{path}"
    return httpx.post(url, content=ASKED, headers=dict(request.headers), timeout=60).status_code


def _requests() -> Iterator[Row]:
    """What somebody on the way, or a stranger, sends to a node."""
    node, key = LocalNode("here"), Ed25519PrivateKey.generate()
    path = path_to(key)
    with ExitStack() as stack:
        stack.callback(node.close)
        port = stack.enter_context(agent(node, key))
        request = signed(key)
        assert _posted(port, request, path) == 200
        yield Row(
            "an overheard request sent again",
            _network(to_miner),
            outcome(_posted(port, request, path) == 200),
            "each signature is answered once",
        )
        hotkey, now = OPERATOR.hotkey, time.time()
        read = to_miner(OPERATOR.sign, hotkey, hotkey, int(now), purpose="management")
        anywhere = network_miner_accepts(
            read.headers,
            miner=hotkey,
            signers=[hotkey],
            method="DELETE",
            purpose="management",
            body=None,
            clock=now,
        )
        yield Row(
            "a signature to read, used to delete",
            outcome(anywhere),
            outcome(_posted(port, signed(key), path_to(key, "preflight")) == 200),
            "method, path and body are signed",
        )
        yield Row(
            "a request signed for tomorrow",
            _network(to_miner, nonce=DAY),
            outcome(_posted(port, signed(key, DAY), path) == 200),
            "a nonce is within 30 s of the node's clock, ahead as behind",
        )
        bare = network_validator_accepts(
            {}, purpose="launch", body=None, clock=now, registered=False
        )
        yield Row(
            "no signature at all",
            outcome(bare),
            outcome(_posted(port, SignedRequest({}, None), path) == 200),
            "only callers on the node's list are answered",
        )


def _answers() -> Iterator[Row]:
    """What comes back from where the node should be."""
    node, key = LocalNode("here"), Ed25519PrivateKey.generate()
    better = Ed25519PrivateKey.generate()
    with ExitStack() as stack:
        stack.callback(node.close)
        port = stack.enter_context(agent(node, key))
        other = stack.enter_context(agent(node, better))
        yield Row("relays to another machine", _unsigned(other, better), *_asked(other, key))
        handed_on = stack.enter_context(served(_relay(other, lambda body: body, key)))
        yield Row(
            "hands the question on to a better machine of the same operator, and signs the answer",
            _unsigned(other, better),
            *_asked(handed_on, key),
        )
        second = stack.enter_context(agent(node, key, OTHER))
        yield Row(
            "answers for another operator's node", _unsigned(second, key), *_asked(second, key)
        )
        richer = stack.enter_context(served(_relay(port, lambda body: body + b" ")))
        yield Row("an answer changed on the way", _unsigned(richer, key), *_asked(richer, key))
        again = stack.enter_context(served(_relay(port, None)))
        assert _asked(again, key)[0] == ACCEPTED
        yield Row("an older answer to a new question", _unsigned(again, key), *_asked(again, key))
        endless = stack.enter_context(served(_endless(0.0)))
        yield Row("an answer without an end", NO_LIMIT, *_asked(endless, key))
        slow = stack.enter_context(served(_endless(0.3)))
        yield Row("an answer a byte at a time", NO_LIMIT, *_asked(slow, key, timeout=1.0))
        copied = stack.enter_context(agent(node, key))
        taken, _ = _asked(copied, key)
        reason = "a key is a file: only times, and asking all machines at once, show it"
        yield Row(
            "gives its agent's key to a better machine", _unsigned(copied, key), taken, reason
        )


def _unsigned(port: int, key: Ed25519PrivateKey) -> str:
    """What the network makes of the machine at a port: status 200 is an answer, whosever it is.

    key: of the machine there, for the network's questions name no machine.
    """
    taken = _posted(port, signed(key), path_to(key)) == 200
    return f"{ACCEPTED}: answers are signed by nobody" if taken else REFUSED


def _asked(port: int, key: Ed25519PrivateKey, timeout: float = 60.0) -> tuple[str, str]:
    """What Windrow makes of the machine at a port, and why."""
    node = AgentNode(
        "n",
        host="127.0.0.1",
        port=port,
        hotkey=OPERATOR.hotkey,
        key=public_half(key),
        wallet=OPERATOR,
    )
    try:
        node.ask(TASK, ASKED, timeout=timeout, max_bytes=1 << 20)
    except NodeError as error:
        return REFUSED, f"{type(error).__name__}: {error}"
    finally:
        node.close()
    return ACCEPTED, ""


def _relay(
    port: int, change: Callable[[bytes], bytes] | None, key: Ed25519PrivateKey | None = None
) -> Starlette:
    """Hands requests on, and answers changed; or, without a change, the first answer for ever.

    key: signs whatever came back, instead of the signature that came with it.
    """
    kept: list[httpx.Response] = []

    async def relay(request: Request) -> Response:
        if change is not None or not kept:
            url = f"http://127.0.0.1:{port}{request.url.path}?{request.url.query}"
            body, headers = await request.body(), dict(request.headers)
            async with httpx.AsyncClient(timeout=60) as client:
                kept.append(await client.post(url, content=body, headers=headers))
        got = kept[-1]
        body = got.content if change is None else change(got.content)
        signature = got.headers["x-windrow-signature"]
        if key is not None:
            text = answer_text(request.headers["x-chutes-signature"], got.status_code, body)
            signature = key.sign(text).hex()
        own = {"x-windrow-signature": signature}
        return Response(body, got.status_code, own)

    return Starlette(routes=[Route("/{rest:path}", relay, methods=["POST"])])


def _endless(pause: float) -> Starlette:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(pause)
            yield b"0" if pause else bytes(1 << 16)

    async def stream(_: Request) -> Response:
        return StreamingResponse(parts())

    return Starlette(routes=[Route("/{rest:path}", stream, methods=["POST"])])
