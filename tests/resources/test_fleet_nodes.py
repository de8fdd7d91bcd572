"""Nodes asked: this machine's process, and an agent over real HTTP."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp

from windrow.engine.fleet.gpu_facts import GpuLost
from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES, BadRequest
from windrow.networks.chutes.signing import to_agent
from windrow.resources.fleet import nodes
from windrow.resources.fleet.agent_identity import (
    AgentKeyError,
    agent_key,
    path_of,
    public_half,
)
from windrow.resources.fleet.agent_node import AgentNode
from windrow.resources.fleet.agent_service import SeenSignatures, agent_app
from windrow.resources.fleet.nodes import Answer, LocalNode
from windrow.resources.secret import Secret
from windrow.resources.wallet import DevelopmentWallet

OPERATOR = DevelopmentWallet(Secret("//Operator"))
STRANGER = DevelopmentWallet(Secret("//Stranger"))
ASK = {"timeout": 20.0, "max_bytes": 1 << 20}


@dataclass
class Echo:
    """A node that answers what it is asked, after a while."""

    seconds: float = 0.0
    size: int | None = None

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        time.sleep(self.seconds)
        if task == "facts":
            raise nodes.TaskFailed("n", task, "NoGpu", "fell off the bus")
        if task == "hash_challenge":
            raise GpuLost("GPU 1 does not answer")
        if task == "llm_job":
            raise KeyError("internal")
        return Answer(request if self.size is None else bytes(self.size), 0.0)

    def close(self) -> None:
        return None


class Served:
    """An ASGI app on a port of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(app, log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def agent(key: Ed25519PrivateKey, echo: Echo) -> Iterator[Served]:
    app = agent_app(echo, hotkey=OPERATOR.hotkey, callers=[OPERATOR.hotkey], key=key)
    served = Served(app)
    yield served
    served.close()


def asking(
    agent: Served, key: Ed25519PrivateKey, wallet: DevelopmentWallet = OPERATOR
) -> AgentNode:
    return AgentNode(
        "n",
        host="127.0.0.1",
        port=agent.port,
        hotkey=OPERATOR.hotkey,
        key=public_half(key),
        wallet=wallet,
    )


def test_an_agent_answers_its_caller(agent: Served, key: Ed25519PrivateKey) -> None:
    answer = asking(agent, key).ask("preflight", b"hello", **ASK)
    assert answer.body == b"hello"
    assert answer.seconds > 0


def test_a_stranger_is_refused(agent: Served, key: Ed25519PrivateKey) -> None:
    with pytest.raises(nodes.NodeRefused, match="not on this node's list"):
        asking(agent, key, STRANGER).ask("preflight", b"", **ASK)


def test_a_request_is_answered_once(agent: Served, key: Ed25519PrivateKey) -> None:
    made = to_agent(
        OPERATOR.sign,
        OPERATOR.hotkey,
        OPERATOR.hotkey,
        int(time.time()),
        method="POST",
        path=path_of("preflight", "n", public_half(key)),
        body=b"x",
    )
    url = f"http://127.0.0.1:{agent.port}{path_of('preflight', 'n', public_half(key))}"
    first, second = (httpx.post(url, content=b"x", headers=dict(made.headers)) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 401)
    assert "answered before" in second.json()["detail"]
    shouting = {name: value.upper() for name, value in made.headers.items()}
    shouting["X-Chutes-Miner"] = shouting["X-Chutes-Validator"] = OPERATOR.hotkey
    assert httpx.post(url, content=b"x", headers=shouting).status_code == 401
    signature = made.headers["X-Chutes-Signature"]
    for spelling in (f"{signature[:2]} {signature[2:]}", f"{signature[:64]}\t{signature[64:]}"):
        respelled = made.headers | {"X-Chutes-Signature": spelling}
        assert httpx.post(url, content=b"x", headers=respelled).status_code == 401
    elsewhere = url.replace("/tasks/preflight", "/tasks/facts")
    assert httpx.post(elsewhere, content=b"x", headers=dict(made.headers)).status_code == 401


def posted(agent: Served, path: str) -> httpx.Response:
    """What the agent says to a path that its caller signed just now."""
    made = to_agent(
        OPERATOR.sign,
        OPERATOR.hotkey,
        OPERATOR.hotkey,
        int(time.time()),
        method="POST",
        path=path,
        body=b"x",
    )
    url = f"http://127.0.0.1:{agent.port}{path}"
    return httpx.post(url, content=b"x", headers=dict(made.headers))


def test_a_question_for_another_machine_is_refused(agent: Served, key: Ed25519PrivateKey) -> None:
    """As one of the operator's machines would hand it on to a better one."""
    mine, other = public_half(key), public_half(Ed25519PrivateKey.generate())
    assert posted(agent, path_of("preflight", "n", mine)).content == b"x"
    assert posted(agent, path_of("preflight", "any", mine)).status_code == 200
    handed_on = posted(agent, path_of("preflight", "n", other))
    assert handed_on.status_code == 401
    assert "for another agent" in handed_on.json()["detail"]
    for path in ("/tasks/preflight", "/tasks/preflight?node=n"):
        assert "names no agent" in posted(agent, path).json()["detail"]


def test_a_machine_that_knows_its_name_has_no_other(key: Ed25519PrivateKey, echo: Echo) -> None:
    callers = [OPERATOR.hotkey]
    agent = Served(agent_app(echo, hotkey=OPERATOR.hotkey, callers=callers, key=key, name="m"))
    with pytest.raises(nodes.NodeRefused, match="for node 'n', and this machine is m"):
        asking(agent, key).ask("preflight", b"", **ASK)
    assert posted(agent, path_of("preflight", "m", public_half(key))).status_code == 200
    agent.close()


def test_an_answer_of_another_machine_is_not_believed(agent: Served) -> None:
    with pytest.raises(nodes.ForgedAnswer, match="not signed by the agent key"):
        asking(agent, Ed25519PrivateKey.generate()).ask("preflight", b"", **ASK)


def test_a_task_that_fails_says_why(agent: Served, key: Ed25519PrivateKey) -> None:
    with pytest.raises(nodes.TaskFailed, match="fell off the bus") as caught:
        asking(agent, key).ask("facts", b"", **ASK)
    assert caught.value.reason == "NoGpu"


def test_what_a_node_says_is_said_once(agent: Served, key: Ed25519PrivateKey) -> None:
    with pytest.raises(nodes.TaskFailed) as failed:
        asking(agent, key).ask("facts", b"", **ASK)
    assert str(failed.value) == "node n failed at facts: NoGpu: fell off the bus"


def test_errors_of_the_agents_own_are_signed(agent: Served, key: Ed25519PrivateKey) -> None:
    with pytest.raises(nodes.TaskFailed, match="GPU 1 does not answer") as lost:
        asking(agent, key).ask("hash_challenge", b"", **ASK)
    assert lost.value.reason == "GpuLost"
    with pytest.raises(nodes.TaskFailed, match="the agent's log has it") as defect:
        asking(agent, key).ask("llm_job", b"", **ASK)
    assert defect.value.reason == "KeyError"
    assert "internal" not in str(defect.value)


def test_an_unknown_task_and_a_large_request(agent: Served, key: Ed25519PrivateKey) -> None:
    with pytest.raises(nodes.NodeRefused, match="UnknownTask"):
        asking(agent, key).ask("rm", b"", **ASK)
    with pytest.raises((nodes.NodeRefused, nodes.NodeUnreachable)):
        asking(agent, key).ask("preflight", bytes(MAX_REQUEST_BYTES + 1), **ASK)


def test_a_request_that_never_ends_is_given_up(key: Ed25519PrivateKey, echo: Echo) -> None:
    """Before it is read whole, nobody knows whose it is."""
    app = agent_app(
        echo, hotkey=OPERATOR.hotkey, callers=[OPERATOR.hotkey], key=key, body_seconds=0.2
    )
    served = Served(app)
    try:
        with socket.create_connection(("127.0.0.1", served.port), 5) as link:
            link.sendall(b"POST /tasks/facts HTTP/1.1\r\nHost: n\r\nContent-Length: 9\r\n\r\nabc")
            assert link.recv(64).startswith(b"HTTP/1.1 408")
        assert asking(served, key).ask("preflight", b"hello", **ASK).body == b"hello"
    finally:
        served.close()


def test_an_answer_may_be_too_large_or_too_late(
    agent: Served, key: Ed25519PrivateKey, echo: Echo
) -> None:
    echo.size = 2 << 20
    with pytest.raises(nodes.NodeAnswerTooLarge):
        asking(agent, key).ask("preflight", b"", **ASK)
    echo.size, echo.seconds = None, 1.0
    with pytest.raises(nodes.NodeTimedOut):
        asking(agent, key).ask("preflight", b"", timeout=0.2, max_bytes=10)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-A: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_who_answers_a_byte_at_a_time_is_cut_off(head: bytes, key: Ed25519PrivateKey) -> None:
    """Every byte comes in time, the answer never."""
    ended = threading.Event()

    def trickle(listening: socket.socket) -> None:
        link, _ = listening.accept()
        with link:
            link.recv(1 << 16)
            link.sendall(head)
            while not ended.wait(0.05):
                try:
                    link.sendall(b"a")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        node = AgentNode(
            "n",
            host="127.0.0.1",
            port=listening.getsockname()[1],
            hotkey=OPERATOR.hotkey,
            key=public_half(key),
            wallet=OPERATOR,
        )
        limit = threading.Timer(5.0, ended.set)
        limit.start()
        with pytest.raises(nodes.NodeTimedOut):
            node.ask("preflight", b"", timeout=0.3, max_bytes=1 << 20)
        assert not ended.is_set()
        limit.cancel()
        ended.set()
        thread.join()


def test_a_node_does_one_thing_at_a_time(agent: Served, key: Ed25519PrivateKey, echo: Echo) -> None:
    echo.seconds = 1.0
    first = threading.Thread(target=asking(agent, key).ask, args=("preflight", b""), kwargs=ASK)
    first.start()
    time.sleep(0.3)
    with pytest.raises(nodes.NodeRefused, match="Busy"):
        asking(agent, key).ask("preflight", b"", **ASK)
    first.join()
    assert asking(agent, key).ask("preflight", b"again", **ASK).body == b"again"


def test_nobody_at_the_port(key: Ed25519PrivateKey, agent: Served) -> None:
    node = asking(agent, key)
    agent.close()
    with pytest.raises(nodes.NodeUnreachable, match="windrow agent"):
        node.ask("preflight", b"", **ASK)


def test_used_signatures_are_forgotten_when_they_are_stale_and_never_before() -> None:
    now = [0.0]
    seen = SeenSignatures(lambda: now[0], seconds=60.0)
    assert seen.first_use("aa")
    assert not seen.first_use("aa")
    now[0] = 59.0
    assert not seen.first_use(" AA ")
    now[0] = 61.0
    assert seen.first_use("aa")


def test_an_agents_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "agent" / "key"
    made = public_half(agent_key(path))
    assert public_half(agent_key(path)) == made
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"short")
    with pytest.raises(AgentKeyError, match="delete it"):
        agent_key(path)


def test_this_machine_survives_what_its_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_WALLET_URI", "//Secret")
    node = LocalNode("here")
    with pytest.raises(nodes.TaskFailed, match="UnknownTask"):
        node.ask("nothing", b"", **ASK)
    process = node._process
    assert process is not None
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"Secret" not in environment
    process.kill()
    process.wait()
    with pytest.raises(nodes.TaskFailed, match="UnknownTask"):
        node.ask("nothing", b"", **ASK)
    again = node._process
    assert again is not None
    again.send_signal(signal.SIGSTOP)
    with pytest.raises(nodes.NodeTimedOut):
        node.ask("nothing", b"", timeout=0.2, max_bytes=10)
    assert again.poll() is not None
    with pytest.raises(BadRequest):
        node.ask("nothing", bytes(MAX_REQUEST_BYTES + 1), **ASK)
    node.close()
