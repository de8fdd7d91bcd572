"""Public and private ports: how a declaration is read, and that no remedy opens a private one."""

import ipaddress
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.fleet.test_preflight import (
    ADDRESS,
    OPEN,
    checks_of,
    found,
    in_measured,
    measured,
    sound,
)
from windrow.engine.fleet.inventory import InvalidFleet, Node, PrivatePort, parse_fleet
from windrow.engine.fleet.ports import NEVER_OPENED, PRIVATE_OF
from windrow.engine.fleet.preflight_address import private_of
from windrow.engine.fleet.preflight_looked import Looked, Probe
from windrow.engine.fleet.preflight_rules import preflight_checks

__all__ = ["found", "measured", "sound"]

NETWORKS = ("grail", "chutes", "compute-subnet", "compute-horde", "gonka")
CLOSED = Probe(tcp=False, udp=False, accepts=False)
INTERESTING = st.sampled_from(sorted(NEVER_OPENED | {8000, 8443, 30000, 30443, 32000, 32767}))
PORTS = st.lists(INTERESTING | st.integers(1, 65535), max_size=12, unique=True)


def opened_by(remedy: str) -> set[int]:
    """Every port that the commands of a remedy open, whatever they call it."""
    ports: set[int] = set()
    for first, last in re.findall(r"ufw allow\D*?(\d+)(?::(\d+))?", remedy):
        ports |= set(range(int(first), int(last or first) + 1))
    for first in re.findall(r"--dport[ =](\d+)|--add-port=(\d+)", remedy):
        ports |= {int(port) for port in first if port}
    return ports


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    networks=st.lists(st.sampled_from(NETWORKS), unique=True),
    old=PORTS,
    private=PORTS,
    probed=PORTS,
    listening=PORTS,
    exposed=PORTS,
    gpu=st.booleans(),
)
def test_no_remedy_opens_a_private_port(
    sound: Looked,
    networks: list[str],
    old: list[int],
    private: list[int],
    probed: list[int],
    listening: list[int],
    exposed: list[int],
    *,
    gpu: bool,
) -> None:
    card = {"gpu": "l40s", "gpu_count": 2} if gpu else {}
    node = Node(  # `ports` as an older file has them, and private ones as one writes them now
        **{"name": "n", "transport": "local", "networks": networks, "ports": old,
           "private_ports": private, "public_address": ADDRESS, **card}
    )  # fmt: skip
    looked = replace(
        in_measured(
            listening=tuple(("0.0.0.0", port) for port in listening),
            busy_ports=tuple(probed),
        )(sound),
        node=node,
        probes=dict.fromkeys(probed, CLOSED) | dict.fromkeys(node.public_ports, CLOSED),
        exposed=frozenset(exposed),
    )
    never = NEVER_OPENED | {port for ports in PRIVATE_OF.values() for port in ports} | set(private)
    for check in preflight_checks(looked):
        assert not opened_by(check.remedy) & never, check


def test_the_test_sees_what_commands_open() -> None:
    assert opened_by("sudo ufw allow 8080, and more") == {8080}
    assert opened_by("sudo ufw allow 5:7/tcp && sudo ufw allow 9/udp") == {5, 6, 7, 9}


def test_public_ports_are_opened_and_chutes_range_without_its_api(sound: Looked) -> None:
    looked = replace(sound, probes={7000: CLOSED, 30000: CLOSED})
    by_port = {check.measured: check.remedy for check in checks_of(looked, "port_reachable")}
    assert opened_by(by_port[7000.0]) == {7000}
    assert opened_by(by_port[30000.0]) == set(range(30000, 32768)) - {32000}
    assert "/udp" in by_port[30000.0]


def test_an_older_declaration_gives_two_lists() -> None:
    def lists(**fields: object) -> tuple[list[int], list[int]]:
        node = Node(**{"name": "n", "transport": "local", **fields})  # type: ignore[arg-type]
        return list(node.public_ports), [entry.port for entry in node.private_ports]

    assert lists(networks=["gonka"], ports=[5000, 8080]) == ([], [5000, 8080])
    assert lists(networks=["gonka"], ports=[5000, 8000]) == ([5000, 8000], [])
    assert lists(networks=["gonka"], ports=[8080, 9090]) == ([], [8080, 9090])
    assert lists(networks=["gonka", "chutes"], ports=[30000, 9200]) == ([30000], [9200])
    assert lists(networks=["chutes"], ports=[80, 32000]) == ([80], [32000])
    assert lists(networks=["grail"], ports=[8080]) == ([8080], [])
    assert lists(networks=["gonka"], ports=[1, 2], private_ports=[2]) == ([], [2, 1])


@given(public=PORTS, networks=st.lists(st.sampled_from(NETWORKS), unique=True))
def test_what_a_network_closes_cannot_be_declared_public(
    public: list[int], networks: list[str]
) -> None:
    closed = {port for name in networks for port in PRIVATE_OF.get(name, {})}
    text = f"nodes: [{{name: n, transport: local, networks: {networks}, public_ports: {public}}}]"
    if closed & set(public):
        with pytest.raises(InvalidFleet, match="must be closed to the internet"):
            parse_fleet(text)
    else:
        assert parse_fleet(text).node("n").public_ports == tuple(public)


def gonka(looked: Looked, *ports: PrivatePort) -> Looked:
    node = looked.node.model_copy(update={"private_ports": ports})
    return replace(looked, node=node)


def verdict(looked: Looked) -> bool | None:
    (check,) = checks_of(looked, "private_ports_closed")
    return check.windrow_verdict


ANYWHERE = "0.0.0.0"
MINE = PrivatePort(port=9999)
SHARED = PrivatePort(port=9999, reachable_by=("10.0.0.2",))


def test_a_private_port_that_is_open_is_wrong(sound: Looked) -> None:
    for port in (8080, 5050, 9100, 9200, 26657, 2375):
        open_here = in_measured(listening=((ANYWHERE, port),))(sound)
        assert verdict(open_here) is False
        assert verdict(replace(sound, exposed=frozenset({port}))) is False
        assert verdict(in_measured(listening=(("10.0.0.5", port),))(sound)) is True
        assert verdict(in_measured(listening=((ADDRESS, port),))(sound)) is False
    assert verdict(in_measured(listening=((ANYWHERE, 9999),))(sound)) is True
    assert verdict(gonka(in_measured(listening=((ANYWHERE, 9999),))(sound), MINE)) is False


def test_a_port_that_some_may_reach_is_judged_from_outside(sound: Looked) -> None:
    """It listens on every address, and a firewall lets one machine through."""
    looked = gonka(in_measured(listening=((ANYWHERE, 9999),))(sound), SHARED)
    assert verdict(looked) is None
    tried = replace(looked, probed_private=frozenset({9999}))
    assert verdict(tried) is True
    assert verdict(replace(tried, exposed=frozenset({9999}))) is False


def test_a_public_port_is_not_a_private_one(sound: Looked) -> None:
    node = sound.node.model_copy(update={"public_ports": (8000,), "networks": ("gonka",)})
    looked = replace(in_measured(listening=((ANYWHERE, 8000),))(sound), node=node)
    assert 8000 not in private_of(node)
    assert verdict(replace(looked, probes={8000: OPEN})) is True


def test_who_may_reach_a_port() -> None:
    port = PrivatePort(port=1, reachable_by=("10.0.0.0/30", "2001:db8::1"))
    assert port.admits("10.0.0.3")
    assert port.admits("2001:db8::1")
    assert not port.admits("10.0.0.4")
    assert ipaddress.ip_address("10.0.0.3")
