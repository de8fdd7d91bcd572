"""The preflight of nodes over real HTTP on loopback, with the asker's own listener and probes."""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.resources.test_fleet_callback import free_port
from tests.support.fleet import SMALL, FleetHome, Machine, served
from windrow.assets.fleet import preflight_outside
from windrow.engine.fleet import tasks
from windrow.engine.fleet.frames import from_json, to_json

HERE = "127.0.0.1"
STAGES = ["inventory", "facts", "preflight"]
Act = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four ports of Chutes' range, and a few seconds for them."""
    monkeypatch.setattr(preflight_outside, "NODE_PORT_SAMPLE", 2)
    monkeypatch.setattr(preflight_outside, "PROBE_SECONDS", 4.0)


@contextmanager
def looked_at(
    tmp_path: Path, act: Act | None = None, *, callback: str = "127.0.0.5", **fields: Any
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The checks of a node by name; callback: the host it is to call, none where it is empty."""
    url = f"http://{callback}:{free_port()}" if callback else "none"
    home = FleetHome.make(tmp_path, replace(SMALL, callback_pause=0.05), WINDROW_CALLBACK=url)
    machine = Machine({"preflight": act} if act else {})
    with served(home.agent(machine)) as port:
        home.declare({"n": port}, **({"networks": ["chutes"], "public_address": HERE} | fields))
        assert home.verify("n", STAGES)
    home.fleet.close()
    found: dict[str, list[dict[str, Any]]] = {}
    for row in home.checks():
        found.setdefault(row["check"], []).append(row)
    yield found


def calling(from_address: str, *, rounds: slice = slice(None)) -> Act:
    """A node that makes some of the requests from another address, as one behind two ways out."""

    def act(request: bytes) -> bytes:
        asked = from_json(request)
        urls = asked.get("reach", {}).get("callbacks", [])
        other = urls[rounds]
        told = {url: fetch(url, from_address) for url in other}
        if not urls:
            return tasks.answer("preflight", request)
        own = {**asked["reach"], "callbacks": [url for url in urls if url not in told]}
        answer = from_json(tasks.answer("preflight", to_json({"reach": own})))
        rest = iter(answer["callbacks"])
        said = [told[url] if url in told else next(rest) for url in urls]
        return to_json(answer | {"callbacks": said})

    return act


def fetch(url: str, source: str) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        str(parts.hostname), parts.port, timeout=5, source_address=(source, 0)
    )
    try:
        connection.request("GET", parts.path, headers={"X-Forwarded-For": HERE})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_an_honest_node_comes_from_its_address_every_time(tmp_path: Path) -> None:
    with looked_at(tmp_path) as found:
        (row,) = found["same_address_out"]
        assert (row["network_verdict"], row["windrow_verdict"]) == (True, True)
        assert (row["measured"], row["needed"], row["reason"]) == (3.0, 3.0, "")
        # Its ports lead to it, and loopback shows nothing of the internet.
        ports = found["port_reachable"]
        assert {30000.0, 32767.0} <= {port["measured"] for port in ports}
        assert len(ports) == 4
        for port in ports:
            assert port["windrow_verdict"] is None
            assert "a loopback address: it shows nothing of the internet" in port["reason"]
        assert found["hairpin"][0]["windrow_verdict"] is True
        # No registry runs beside it, and no subnet knows the miner.
        assert found["registry_answers"][0]["windrow_verdict"] is False
        for check in ("hotkey_registered", "one_uid", "no_axon", "incentive"):
            assert found[check][0]["windrow_verdict"] is None
            assert "the development chain has no subnets" in found[check][0]["reason"]


def test_traffic_by_another_address_is_refused_with_both_named(tmp_path: Path) -> None:
    with looked_at(tmp_path, calling("127.0.0.2")) as found:
        (row,) = found["same_address_out"]
        assert (row["network_verdict"], row["windrow_verdict"]) == (False, False)
        assert row["reason"] == "of 3 requests came 3 from 127.0.0.2, not from 127.0.0.1"
        assert row["remedy"]


def test_a_second_way_out_is_seen_where_the_network_looks_once(tmp_path: Path) -> None:
    with looked_at(tmp_path, calling("127.0.0.2", rounds=slice(2, 3))) as found:
        (row,) = found["same_address_out"]
        assert (row["network_verdict"], row["windrow_verdict"]) == (True, False)
        assert "1 from 127.0.0.2" in row["reason"]


def test_a_node_that_sees_a_salt_twice_gains_nothing(tmp_path: Path) -> None:
    """First by the other way, then again by the declared one: the first counts."""

    def act(request: bytes) -> bytes:
        for url in from_json(request).get("reach", {}).get("callbacks", []):
            assert fetch(url, "127.0.0.2")
        return tasks.answer("preflight", request)

    with looked_at(tmp_path, act) as found:
        (row,) = found["same_address_out"]
        assert row["windrow_verdict"] is False
        assert "3 from 127.0.0.2" in row["reason"]


def test_a_nodes_word_alone_shows_nothing(tmp_path: Path) -> None:
    """It says it was told something, and nobody came."""

    def act(request: bytes) -> bytes:
        asked = from_json(request)
        urls = asked.get("reach", {}).get("callbacks", [])
        if not urls:
            return tasks.answer("preflight", request)
        own = to_json({"reach": asked["reach"] | {"callbacks": []}})
        answer = from_json(tasks.answer("preflight", own))
        return to_json(answer | {"callbacks": ["0" * 36] * len(urls)})

    with looked_at(tmp_path, act) as found:
        (row,) = found["same_address_out"]
        assert (row["network_verdict"], row["windrow_verdict"]) == (False, False)
        assert "3 never came" in row["reason"]


@pytest.mark.parametrize(
    ("callback", "fields", "why"),
    [
        ("", {}, "WINDROW_CALLBACK does not say"),
        (HERE, {}, "the machine that asks"),
        ("127.0.0.5", {"public_address": None}, "declares no public_address"),
    ],
)
def test_what_nobody_could_measure_says_why(
    tmp_path: Path, callback: str, fields: dict[str, Any], why: str
) -> None:
    with looked_at(tmp_path, callback=callback, **fields) as found:
        (row,) = found["same_address_out"]
        assert (row["network_verdict"], row["windrow_verdict"]) == (None, None)
        assert row["reason"].startswith("not measured: ")
        assert why in row["reason"]
        assert "WINDROW_CALLBACK" in row["remedy"]


def test_a_local_node_sees_nothing_from_outside(tmp_path: Path) -> None:
    url = f"http://127.0.0.5:{free_port()}"
    home = FleetHome.make(tmp_path, WINDROW_CALLBACK=url)
    home.settings.fleet.write_text(
        "nodes:\n- {name: n, transport: local, networks: [chutes], public_address: 8.8.4.4}\n"
    )
    home.instance.add_dynamic_partitions("nodes", ["n"])
    assert home.verify("n", STAGES)
    home.fleet.close()
    rows = {row["check"]: row for row in home.checks()}
    for check in ("same_address_out", "port_reachable"):
        assert rows[check]["windrow_verdict"] is None
        assert "the machine that asks" in rows[check]["reason"]


def test_a_node_of_no_network_is_not_asked_to_reach_anything(tmp_path: Path) -> None:
    home = FleetHome.make(tmp_path)
    machine = Machine()
    with served(home.agent(machine)) as port:
        home.declare({"n": port})
        assert home.verify("n", STAGES)
    home.fleet.close()
    assert machine.asked == ["facts", "preflight"]


@pytest.mark.parametrize(
    ("allowed", "verdict"), [([], False), (["192.0.2.0/24"], False), (["127.0.0.0/8"], None)]
)
def test_a_private_port_is_tried_from_here_unless_this_machine_may_reach_it(
    tmp_path: Path, allowed: list[str], *, verdict: bool | None
) -> None:
    """A node that has no public port to open is tried all the same."""
    with socket.create_server((HERE, 0)) as service:
        private = {"port": service.getsockname()[1], "reachable_by": allowed}
        fields: dict[str, Any] = {"networks": ["gonka"], "private_ports": [private]}
        with looked_at(tmp_path, callback="", **fields) as found:
            (row,) = found["private_ports_closed"]
    others = {2375, 5050, 8000, 8080, 9100, 9200, 26657, 32000}
    if any(str(port) in row["reason"] for port in others):
        pytest.skip("another service of this machine listens on a private port")
    assert row["windrow_verdict"] is verdict
    assert ("took a connection from here" in row["reason"]) is (verdict is False)
