"""A server's process, with a small real one in the place of a model's."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from windrow.resources.generation.client import ServerClient, succeeded
from windrow.resources.generation.process import (
    MAX_LOG_BYTES,
    PortTaken,
    ServerProcess,
    ServerStartFailed,
    require_free_port,
)
from windrow.resources.secret import Secret

SERVER = """
import http.server, os, subprocess, sys
print("key", "a-secret-key", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
given = [os.environ.get(name) for name in ("BT_WALLET_PASSWORD", "HF_TOKEN", "HF_HUB_OFFLINE")]
print("child", child.pid, "given", *given, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    made = ServerProcess("model", tmp_path, [Secret("a-secret-key")], grace_seconds=0.5)
    yield made
    made.stop()


def start(process: ServerProcess, port: int, script: str = SERVER, seconds: float = 20) -> None:
    client = ServerClient(f"http://127.0.0.1:{port}")
    process.start(
        [sys.executable, "-c", script, str(port)],
        {"HF_HUB_OFFLINE": "1"},
        "as configured",
        ready=lambda: succeeded(client.get("/health", seconds=2), "asked"),
        seconds=seconds,
    )


def child_of(process: ServerProcess) -> int:
    return int(process.log.read_text().split("child ")[1].split()[0])


def test_server_outlives_its_starter_and_is_found_again(
    process: ServerProcess, port: int, tmp_path: Path
) -> None:
    start(process, port)
    found = ServerProcess("model", tmp_path)
    running = found.running()
    assert running is not None
    assert running.identity == "as configured"
    child = child_of(process)
    found.stop()
    assert found.running() is None
    assert process.running() is None
    assert not psutil.pid_exists(running.pid) or psutil.Process(running.pid).status() == "zombie"
    assert not psutil.pid_exists(child)


def test_rest_of_a_killed_server_is_stopped(process: ServerProcess, port: int) -> None:
    start(process, port)
    running = process.running()
    assert running is not None
    child = child_of(process)
    os.kill(running.pid, signal.SIGKILL)
    while process.running() is not None:
        time.sleep(0.01)
    assert psutil.pid_exists(child)
    start(process, port)
    assert not psutil.pid_exists(child)


def test_server_that_ignores_sigterm_is_killed(process: ServerProcess, port: int) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER
    start(process, port, stubborn)
    running = process.running()
    assert running is not None
    process.stop()
    assert not psutil.pid_exists(running.pid)


def test_number_that_went_to_a_stranger_is_left_alone(tmp_path: Path) -> None:
    state = tmp_path / "model.json"
    state.write_text(f'{{"pid": {os.getpid()}, "started": 1.0, "identity": "x"}}')
    process = ServerProcess("model", tmp_path)
    assert process.running() is None
    process.stop()
    assert not state.exists()


def test_state_of_no_meaning_is_forgotten(tmp_path: Path) -> None:
    for text in ("", "[]", '{"pid": 1}'):
        (tmp_path / "model.json").write_text(text)
        assert ServerProcess("model", tmp_path).running() is None


def test_failed_start_quotes_the_log_without_secrets(process: ServerProcess, port: int) -> None:
    script = "print('key a-secret-key'); import sys; sys.exit('no such model')"
    with pytest.raises(ServerStartFailed, match="ended with status 1") as raised:
        start(process, port, script)
    assert "no such model" in str(raised.value)
    assert "key (hidden)" in str(raised.value)
    assert "a-secret-key" not in str(raised.value)
    assert process.running() is None


def test_server_that_is_never_ready_is_stopped(process: ServerProcess, port: int) -> None:
    with pytest.raises(ServerStartFailed, match="was not ready within 0 s"):
        start(process, port, "import time; time.sleep(600)", seconds=0.3)
    assert process.running() is None


def test_interpreter_that_is_not_there_is_named(process: ServerProcess) -> None:
    with pytest.raises(ServerStartFailed, match="/no/python"):
        process.start(["/no/python"], {}, "", ready=lambda: None, seconds=1)


def test_server_is_given_no_secret_of_the_environment(
    process: ServerProcess, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BT_WALLET_PASSWORD", "p1")
    monkeypatch.setenv("HF_TOKEN", "t1")
    start(process, port)
    assert "given None None 1" in process.log.read_text()
    assert process.log.stat().st_mode & 0o077 == 0


def test_log_is_held_to_its_size(process: ServerProcess, port: int) -> None:
    start(process, port)
    with process.log.open("ab") as log:
        log.write(b"x" * MAX_LOG_BYTES + b"the end")
    process.trim_log()
    assert process.log.stat().st_size == 0
    assert process.log.with_suffix(".log.1").read_bytes().endswith(b"the end")


def test_taken_port_is_named(port: int) -> None:
    require_free_port("127.0.0.1", port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(PortTaken, match=str(port)):
            require_free_port("127.0.0.1", port)
