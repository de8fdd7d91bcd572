"""The asker's listener on loopback: it tells the address it sees, once for each salt."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from windrow.networks.chutes.node_resources import address_token
from windrow.resources.fleet import callback as callback_module
from windrow.resources.fleet.callback import Callback, CallbackTaken, Question


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def callback(tmp_path: Path) -> Callback:
    return Callback([f"http://127.0.0.1:{free_port()}"], tmp_path / "callback")


@pytest.fixture
def question(callback: Callback) -> Iterator[Question]:
    with callback.question(3, 60.0) as asked:
        yield asked


def fetch(url: str, source: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        str(parts.hostname), parts.port, timeout=5, source_address=(source, 0)
    )
    try:
        connection.request("GET", parts.path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def sent(callback: Callback, data: bytes) -> bytes:
    parts = urlsplit(callback.urls[0])
    with socket.create_connection((str(parts.hostname), parts.port or 0), 5) as connection:
        connection.sendall(data)
        return connection.recv(4096)


def test_a_request_is_told_where_it_comes_from_and_remembered(question: Question) -> None:
    said = [fetch(question.urls[0]), fetch(question.urls[1], "127.0.0.2")]
    assert [status for status, _ in said] == [200, 200]
    here, there, never = question.arrivals("127.0.0.1", [said[0][1], said[1][1], None])
    assert (here.came_from, there.came_from, never.came_from) == ("127.0.0.1", "127.0.0.2", None)
    assert here.said == here.expected
    assert there.said != there.expected


def test_a_salt_is_good_once(question: Question) -> None:
    assert fetch(question.urls[0])[0] == 200
    assert fetch(question.urls[0], "127.0.0.2") == (404, "")
    assert question.arrivals("127.0.0.1", [None] * 3)[0].came_from == "127.0.0.1"


def test_the_token_cannot_be_made_from_what_the_node_knows(question: Question) -> None:
    """The network's salt is the validator's secret; the one in the URL is not."""
    salt = question.urls[0].rpartition("/")[2]
    told = fetch(question.urls[0])[1]
    assert told not in {address_token("127.0.0.1", salt, other) for other in (None, "", salt)}


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via"])
def test_what_a_request_says_of_its_origin_counts_for_nothing(
    question: Question, header: str
) -> None:
    told = fetch(question.urls[0], "127.0.0.2", **{header: "for=8.8.4.4, 8.8.4.4"})[1]
    arrival = question.arrivals("8.8.4.4", [told, None, None])[0]
    assert arrival.came_from == "127.0.0.2"
    assert arrival.said != arrival.expected


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "GET /{other} HTTP/1.1",
        "GET /../callback/{salt} HTTP/1.1",
        "GET /{salt}.seen HTTP/1.1",
        "GET /{salt}?x HTTP/1.1",
        "POST /{salt} HTTP/1.1",
        "GET /{upper} HTTP/1.1",
        "GET /{salt}",
        "{salt}",
    ],
)
def test_anything_else_is_refused(callback: Callback, question: Question, line: str) -> None:
    salt = question.urls[0].rpartition("/")[2]
    text = line.format(salt=salt, other="0" * 32, upper=salt.upper())
    assert sent(callback, f"{text}\r\n\r\n".encode()).startswith(b"HTTP/1.1 404 ")
    assert question.arrivals("127.0.0.1", [None] * 3)[0].came_from is None


def test_a_large_request_is_not_read(callback: Callback, question: Question) -> None:
    with contextlib.suppress(ConnectionError):
        assert sent(callback, b"GET /" + b"0" * (1 << 20)) == b""
    assert fetch(question.urls[0])[0] == 200


def test_slow_strangers_do_not_keep_a_node_out(
    callback: Callback, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback_module, "REQUEST_SECONDS", 0.3)
    where = urlsplit(callback.urls[0])
    slow = [
        socket.create_connection((str(where.hostname), where.port or 0))
        for _ in range(callback_module.MOST_AT_ONCE)
    ]
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                if fetch(question.urls[0])[0] == 200:
                    break
            except (ConnectionError, http.client.HTTPException):
                time.sleep(0.05)
        assert question.arrivals("127.0.0.1", [None] * 3)[0].came_from == "127.0.0.1"
    finally:
        for connection in slow:
            connection.close()


def test_a_salt_expires(tmp_path: Path) -> None:
    now = [1000.0]
    callback = Callback([f"http://127.0.0.1:{free_port()}"], tmp_path, lambda: now[0])
    with callback.question(1, 60.0) as question:
        now[0] += 61.0
        assert fetch(question.urls[0])[0] == 404


def test_nothing_stays_after_a_question(callback: Callback, tmp_path: Path) -> None:
    with callback.question(1, 60.0) as question:
        fetch(question.urls[0])
    assert list((tmp_path / "callback").iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        fetch(question.urls[0])


def test_questions_at_once_share_the_listener(callback: Callback) -> None:
    with callback.question(1, 60.0) as first:
        with callback.question(1, 60.0) as second:
            assert fetch(second.urls[0])[0] == 200
        assert fetch(first.urls[0])[0] == 200


def test_what_a_killed_process_left_is_forgotten(callback: Callback, tmp_path: Path) -> None:
    (tmp_path / "callback").mkdir()
    old = tmp_path / "callback" / ("0" * 32)
    old.write_text("{}")
    os.utime(old, (1, 1))
    with callback.question(1, 60.0):
        assert not old.exists()


OTHER = """
import sys
from pathlib import Path
from windrow.resources.fleet.callback import Callback
with Callback([sys.argv[1]], Path(sys.argv[2])).question(1, 60.0):
    print("up", flush=True)
    sys.stdin.read()
"""


def test_processes_answer_for_each_other(callback: Callback, tmp_path: Path) -> None:
    """Runs of several nodes are several processes, and a connection goes to any of them."""
    command = [sys.executable, "-c", OTHER, callback.urls[0], str(tmp_path / "callback")]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
        callback.question(16, 60.0) as question,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        told = [fetch(url) for url in question.urls]
        arrivals = question.arrivals("127.0.0.1", [token for _, token in told])
        other.communicate()
    assert all(arrival.said == arrival.expected for arrival in arrivals)
    assert {arrival.came_from for arrival in arrivals} == {"127.0.0.1"}


def test_a_port_of_another_program_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        before = threading.active_count()
        with (
            pytest.raises(CallbackTaken, match="WINDROW_CALLBACK"),
            Callback([url], tmp_path).question(1, 1.0),
        ):
            pass
        assert threading.active_count() == before
