"""Strangers who flood a listener: it stays small, and an allowed caller is answered in time."""

import contextlib
import datetime as dt
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from windrow.resources.fleet.agent_node import AgentNode
from windrow.resources.fleet.nodes import NodeRefused
from windrow.resources.secret import Secret
from windrow.resources.wallet import DevelopmentWallet

OPERATOR = DevelopmentWallet(Secret("//Windrow"))
MEMORY = 256 << 20
SECONDS = 1.0
COMMAND = (sys.executable, "-c", "from windrow.pipelines.cli import main; main()")
HALF = b"POST /tasks/facts HTTP/1.1\r\nHost: x\r\n"
UNFINISHED = HALF + b"Content-Length: 1000000\r\n\r\n"


@contextlib.contextmanager
def started(folder: Path, *command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command of Windrow's that listens, and the first lines it prints."""
    process = subprocess.Popen(
        [*COMMAND, *command], cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    lines = []
    try:
        while not any(":" in line and re.search(r":\d+|port", line) for line in lines[:1]):
            lines.append(process.stdout.readline())
        yield process, lines[0]
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


class Agent:
    """A running agent. asked: how long its allowed caller waits for a refusal of its own."""

    def __init__(self, process: subprocess.Popen[str], first: str, *, tls: str | None) -> None:
        found = re.search(r"127\.0\.0\.1:(\d+)", first)
        assert found
        assert process.stdout is not None
        key = ""
        while not key.startswith("agent_key: "):
            key = process.stdout.readline()
        self.port = int(found[1])
        self.process = psutil.Process(process.pid)
        self._node = AgentNode(
            "n",
            host="127.0.0.1",
            port=self.port,
            hotkey=OPERATOR.hotkey,
            key=key.split()[1],
            wallet=OPERATOR,
            tls=tls,
        )

    def asked(self) -> float:
        """Seconds until a signed request is answered; a task that is none is cheap to answer."""
        began = time.monotonic()
        with pytest.raises(NodeRefused, match="UnknownTask"):
            self._node.ask("nothing", b"x", timeout=10.0, max_bytes=1 << 20)
        return time.monotonic() - began

    @property
    def memory(self) -> int:
        return self.process.memory_info().rss


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    command = ("agent", "--hotkey", OPERATOR.hotkey, "--port", "0")
    with started(tmp_path_factory.mktemp("agent"), *command) as (process, first):
        yield Agent(process, first, tls=None)


@contextlib.contextmanager
def connections(port: int, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that have sent this and wait."""
    opened = []
    try:
        for _ in range(count):
            link = socket.create_connection(("127.0.0.1", port), timeout=5)
            with contextlib.suppress(OSError):
                link.sendall(sent)
            opened.append(link)
        yield opened
    finally:
        for link in opened:
            link.close()


def endless_headers(port: int) -> None:
    """160 MiB of headers on one connection, as far as they are taken."""
    line = b"X-Filler: " + b"y" * 8000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(HALF)
        with contextlib.suppress(OSError):
            for _ in range((160 << 20) // len(line)):
                link.sendall(line)


def test_endless_headers_are_not_kept(agent: Agent) -> None:
    before = agent.memory
    endless_headers(agent.port)
    assert agent.memory - before < MEMORY
    assert agent.asked() < SECONDS


@pytest.mark.parametrize(
    "sent",
    [HALF, b"", UNFINISHED + b"z" * 60_000],
    ids=["half-sent requests", "silent connections", "unfinished bodies"],
)
def test_connections_that_wait_keep_nobody_out(agent: Agent, sent: bytes) -> None:
    before = agent.memory
    with connections(agent.port, 1_100, sent):
        assert agent.asked() < SECONDS
        assert agent.memory - before < MEMORY
    assert agent.asked() < SECONDS


def test_large_bodies_together_are_bounded(agent: Agent) -> None:
    before = agent.memory
    with connections(agent.port, 300, UNFINISHED) as opened:
        for link in opened:
            link.settimeout(0.05)
            with contextlib.suppress(OSError):  # those that made room for others are closed
                link.sendall(b"z" * 900_000)
        assert agent.memory - before < MEMORY
        assert agent.asked() < SECONDS


def test_bad_signatures_cost_little(agent: Agent) -> None:
    before = agent.memory
    stranger = {
        "X-Chutes-Hotkey": OPERATOR.hotkey,
        "X-Chutes-Nonce": str(int(time.time())),
        "X-Chutes-Signature": "ab" * 64,
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{agent.port}", trust_env=False) as client:
        for _ in range(300):
            assert client.post("/tasks/facts", content=b"x", headers=stranger).status_code == 401
    assert agent.memory - before < MEMORY
    assert agent.asked() < SECONDS


def test_a_slow_header_is_cut(agent: Agent) -> None:
    with socket.create_connection(("127.0.0.1", agent.port), timeout=15) as link:
        link.sendall(HALF)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(1) == b""
        assert 4 < time.monotonic() - began < 8


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node n")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


def test_an_agent_answers_over_tls_however_many_wait(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, key = map(str, certificate)
    command = ("agent", "--hotkey", OPERATOR.hotkey, "--port", "0")
    with started(tmp_path, *command, "--tls-cert", cert, "--tls-key", key) as (process, first):
        agent = Agent(process, first, tls=cert)
        before = agent.memory
        assert agent.asked() < SECONDS
        hello = bytes.fromhex("1603010200010001fc0303") + bytes(100)
        for sent in (b"", hello):  # handshakes that never begin, or never end
            with connections(agent.port, 1_100, sent):
                assert agent.asked() < SECONDS
                assert agent.memory - before < MEMORY
        with httpx.Client(trust_env=False) as client, pytest.raises(httpx.HTTPError):
            client.get(f"https://127.0.0.1:{agent.port}/ping")  # a stranger's CAs do not know it


def test_a_certificate_without_its_key_is_named(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, _ = certificate
    done = subprocess.run(
        [*COMMAND, "agent", "--hotkey", OPERATOR.hotkey, "--tls-cert", cert, "--tls-key", cert],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "TlsFilesUnusable" in done.stderr + done.stdout


def load(ask: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ask()


def test_metrics_end_in_order_after_load(tmp_path: Path) -> None:
    """Floods, scrapes and SIGTERM in the middle of them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with started(tmp_path, "metrics", "--port", str(port)) as (process, _):
        server = psutil.Process(process.pid)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/metrics").status_code == 200
            before = server.memory_info().rss
            endless_headers(port)
            with connections(port, 1_100, HALF):
                began = time.monotonic()
                assert (
                    "windrow_lake_readable"
                    in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
                )
                assert time.monotonic() - began < SECONDS
            load(lambda: client.get("/metrics"), 1.0)
            assert server.memory_info().rss - before < MEMORY
            with connections(port, 50, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0


def test_old_protocols_are_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    from windrow.resources.guarded_server import TlsFiles

    context = TlsFiles(*map(str, certificate)).context()
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
