"""Ports from outside and from the node, over real sockets on loopback."""

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.resources.test_fleet_callback import free_port
from tests.support.fleet import served
from windrow.engine.fleet import preflight_reach
from windrow.engine.fleet.preflight import BadMeasurement
from windrow.engine.fleet.preflight_looked import Probe
from windrow.engine.fleet.preflight_ports import digest
from windrow.engine.fleet.preflight_reach import AskedReach, Reached, challenge, parse
from windrow.engine.fleet.tasks import answer
from windrow.resources.fleet.reach import accepting, probe

KEY = secrets.token_bytes(32)


def looked(ports: tuple[int, ...], key: bytes = KEY) -> tuple[Reached, dict[int, Probe]]:
    """The node's word, and what the asker found while it listened."""
    asked = AskedReach(ports=ports, key=KEY.hex(), seconds=3.0, address="127.0.0.1")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(answer, "preflight", challenge(asked))
        found = probe("127.0.0.1", ports, key, seconds=3.0, ended=asking.done)
        return parse(asking.result(), asked), found


def test_the_node_answers_at_its_ports_over_tcp_and_udp() -> None:
    ports = (free_port(), free_port())
    reached, found = looked(ports)
    assert found == dict.fromkeys(ports, Probe(tcp=True, udp=True, accepts=True))
    assert reached.opened == ports
    assert reached.hairpin is True


def test_another_machine_at_the_address_does_not_know_the_key() -> None:
    """Whoever stands there takes the connection, and cannot answer as the node that was asked."""
    port = free_port()
    _, found = looked((port,), secrets.token_bytes(32))
    assert found == {port: Probe(tcp=False, udp=False, accepts=True)}


def test_a_stranger_is_not_answered_and_not_taken_for_the_asker() -> None:
    port = free_port()
    asked = AskedReach(ports=(port,), key=KEY.hex(), seconds=5.0)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(answer, "preflight", challenge(asked))
        while not accepting("127.0.0.1", [port]):
            pass
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), 5) as stranger:
                stranger.sendall(secrets.token_bytes(32))
                assert stranger.recv(64) == b""
        found = probe("127.0.0.1", [port], KEY, seconds=3.0, ended=asking.done)
    assert found[port] == Probe(tcp=True, udp=True, accepts=True)


def test_a_port_that_is_taken_is_reached_and_not_the_nodes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        reached, found = looked((port,))
    assert reached.opened == ()
    assert found == {port: Probe(tcp=False, udp=False, accepts=True)}
    assert reached.hairpin is None


def test_a_closed_port_is_not_reached() -> None:
    port = free_port()
    found = probe("127.0.0.1", [port], KEY, seconds=0.3, ended=lambda: False)
    assert found == {port: Probe(tcp=False, udp=False, accepts=False)}


def test_who_says_nothing_does_not_hold_the_asker_up() -> None:
    """A connection taken and left open, and a node that has stopped: one try, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        taken: list[socket.socket] = []
        thread = threading.Thread(target=lambda: taken.append(silent.accept()[0]))
        thread.start()
        found = probe("127.0.0.1", [port], KEY, seconds=0.0, ended=lambda: True)
        thread.join()
        taken[0].close()
    assert found[port].tcp is False


def test_a_node_on_the_other_side_of_the_world_is_waited_for() -> None:
    """A datagram takes a third of a second there and back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        port = far.getsockname()[1]

        def late() -> None:
            sent, address = far.recvfrom(64)
            time.sleep(0.35)
            far.sendto(digest(KEY, "udp", port, sent), address)

        thread = threading.Thread(target=late)
        thread.start()
        found = probe("127.0.0.1", [port], KEY, seconds=0.0, ended=lambda: True)
        thread.join()
    assert found[port].udp is True


def test_open_ports_are_told_from_closed_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        assert accepting("127.0.0.1", [port, free_port()]) == {port}
    assert accepting("127.0.0.1", []) == frozenset()


def test_peers_and_names() -> None:
    # Who refuses a connection is there.
    asked = AskedReach(peers=("127.0.0.3",), registry="localhost")
    found = parse(answer("preflight", challenge(asked)), asked)
    assert found.peers == ("127.0.0.3",)
    assert (found.registry_address, found.registry_status) == ("127.0.0.1", None)


@pytest.mark.parametrize("status", [200, 401])
def test_the_registry_beside_the_node_is_asked(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    asked_for: list[str] = []

    async def registry(request: Request) -> Response:
        asked_for.append(f"{request.headers['host']}{request.url.path}")
        return Response(status_code=status)

    app = Starlette(routes=[Route("/v2/", registry)])
    with served(app) as port:
        monkeypatch.setattr(preflight_reach, "REGISTRY_PORT", port)
        asked = AskedReach(registry="localhost")
        found = parse(answer("preflight", challenge(asked)), asked)
    assert (found.registry_address, found.registry_status) == ("127.0.0.1", status)
    assert asked_for == [f"localhost:{port}/v2/"]


def test_a_node_fetches_over_http_alone() -> None:
    asked = AskedReach(callbacks=("file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "x"))
    assert parse(answer("preflight", challenge(asked)), asked).callbacks == (None,) * 4


def test_urls_that_do_not_answer_cost_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_reach, "FETCH_SECONDS", 0.1)
    monkeypatch.setattr(preflight_reach, "FETCHING_SECONDS", 0.25)
    tried: list[str] = []
    real = preflight_reach._fetched

    def counted(url: str, until: float) -> str | None:
        tried.append(url)
        return real(url, until)

    monkeypatch.setattr(preflight_reach, "_fetched", counted)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        found = preflight_reach.reach(AskedReach(callbacks=(url,) * 24))
        silent.settimeout(0.05)
        connections = 0
        try:
            while True:
                silent.accept()[0].close()
                connections += 1
        except TimeoutError:
            pass
    assert found.callbacks == (None,) * 24
    assert len(tried) == 48
    assert connections < 6


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields | {"callbacks": []},
        lambda fields: fields | {"callbacks": [5]},
        lambda fields: fields | {"callbacks": ["x" * 600]},
        lambda fields: fields | {"opened": [0]},
        lambda fields: fields | {"registry_status": 7},
        lambda fields: fields | {"hairpin": "yes"},
        lambda fields: fields | {"x": 1},
        lambda fields: {},
    ],
)
def test_another_form_is_refused(change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    asked = AskedReach(callbacks=("x",))
    fields = json.loads(answer("preflight", challenge(asked)))
    with pytest.raises(BadMeasurement):
        parse(json.dumps(change(fields)).encode(), asked)
