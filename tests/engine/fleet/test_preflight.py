"""Preflight: measured on the machine, held against each network's rules by who asked."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from windrow.engine.fleet import facts, preflight
from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.inventory import Node, WireGuard
from windrow.engine.fleet.preflight_looked import GIB, Looked
from windrow.engine.fleet.preflight_rules import preflight_checks
from windrow.engine.fleet.tasks import BadRequest
from windrow.networks.chutes.node_resources import address_token

ADDRESS = "8.8.4.4"
GONE = preflight.Cached(name="a/b", bytes=0, whole=False)


@pytest.fixture(scope="module")
def measured() -> preflight.Measured:
    return preflight.parse(preflight.answer(preflight.challenge(preflight.Asked())))


@pytest.fixture(scope="module")
def found() -> facts.Facts:
    return facts.parse_facts(facts.answer(facts.challenge()))


def gpu(index: int = 0, **changes: Any) -> facts.GpuFacts:
    values: dict[str, Any] = {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA L40S",
        "vram_bytes": 48_300_000_000,
        "vram_used_bytes": 0,
        "processors": 142,
        "clock_mhz": 2520.0,
    }
    return facts.GpuFacts(**(values | changes))


@pytest.fixture
def sound(measured: preflight.Measured, found: facts.Facts) -> Looked:
    """A machine with nothing wrong, serving every network."""
    mount = preflight.Mount(path="/var/snap", device="/dev/md0", bytes=2000 * GIB, free=GIB)
    return Looked(
        node=Node(
            name="gpu-0",
            transport="local",
            networks=("chutes", "gonka", "compute-subnet", "compute-horde"),
            gpu="l40s",
            gpu_count=2,
            hardware_class="always_on.llm.a6000",
            public_address=ADDRESS,
            wireguard_address="192.168.0.1",
            wireguard_primary=True,
        ),
        wireguard=WireGuard(),
        facts=found.model_copy(
            update={
                "gpus": (gpu(), gpu(1)),
                "ram_bytes": 512 * GIB,
                "cpu_threads": 64,
                "container": None,
            }
        ),
        measured=measured.model_copy(
            update={
                "first_process": "systemd",
                "system_id": "ubuntu",
                "system_version": "22.04",
                "hostname": "gpu-0",
                "snap_mount": mount,
                "largest_mount": mount,
                "programs": ("docker", "nvidia-ctk"),
                "ip_forward": True,
                "clock_synchronised": True,
                "routes": ("0.0.0.0/0 eth0", "203.0.113.0/24 eth0", "192.168.0.0/20 wg0"),
                "listening": (("127.0.0.1", 9200),),
                "cache_writable": True,
                "callback_answer": address_token(ADDRESS, "salt", None),
                "registry_address": "127.0.0.1",
                "models": (preflight.Cached(name="a/b", bytes=1, whole=True),),
            }
        ),
        clock_offset=0.1,
        reachable={30000: True},
        callback_salt="salt",
        uids=1,
    )


def refused(looked: Looked) -> list[NodeCheck]:
    return [check for check in preflight_checks(looked) if check.windrow_verdict is not True]


def test_a_sound_machine_has_nothing_to_mend(sound: Looked) -> None:
    assert refused(sound) == []
    assert len(preflight_checks(sound)) > 25


def in_measured(**changes: Any) -> Callable[[Looked], Looked]:
    return lambda looked: replace(looked, measured=looked.measured.model_copy(update=changes))


def in_facts(**changes: Any) -> Callable[[Looked], Looked]:
    return lambda looked: replace(looked, facts=looked.facts.model_copy(update=changes))


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (lambda looked: replace(looked, clock_offset=3.0), {"clock"}),
        (lambda looked: replace(looked, clock_offset=3600.0), {"clock"}),
        (in_facts(ram_bytes=100 * GIB), {"ram_per_vram"}),
        (in_facts(cpu_threads=8), {"cpu_cores"}),
        (in_facts(container="docker"), {"own_machine"}),
        (in_facts(gpus=(gpu(),)), {"gpu_count"}),
        (in_facts(gpus=(gpu(), gpu(1, name="NVIDIA L4"))), {"gpu_kinds", "gpu_as_declared"}),
        (in_facts(gpus=(gpu(), gpu(1, vram_bytes=24 * GIB))), {"gpu_as_declared"}),
        (in_facts(gpus=(gpu(), gpu(1, mig=True))), {"gpu_not_split"}),
        (in_facts(gpus=(gpu(), gpu(1, processes=2))), {"gpu_alone"}),
        (in_facts(gpus=(gpu(), gpu(1, throttle=("power cap",)))), {"gpu_full_speed"}),
        (in_measured(hostname="other"), {"node_name"}),
        (in_measured(system_version="24.04"), {"operating_system"}),
        (in_measured(programs=("docker",)), {"container_runtime"}),
        (in_measured(snap_mount=None), {"storage_path", "storage_size"}),
        (in_measured(cache_writable=False), {"cache_writable"}),
        (in_measured(ip_forward=False), {"ip_forward"}),
        (in_measured(clock_synchronised=False), {"clock_kept"}),
        (in_measured(routes=("10.4.0.0/16 eth0",)), {"wireguard_overlap"}),
        (in_measured(listening=(("0.0.0.0", 9200),)), {"private_ports_closed"}),
        (in_measured(busy_ports=(8080,)), {"ports_free"}),
        (in_measured(callback_answer="another"), {"same_address_out"}),
        (in_measured(registry_address="1.2.3.4"), {"registry_host"}),
        (
            in_measured(models=(preflight.Cached(name="a/b", bytes=0, whole=False),)),
            {"model_cached"},
        ),
        (lambda looked: replace(looked, reachable={30000: False}), {"port_reachable"}),
        (lambda looked: replace(looked, callback_salt=None), {"same_address_out"}),
        (lambda looked: replace(looked, uids=2), {"one_uid"}),
        (
            lambda looked: replace(
                looked, node=looked.node.model_copy(update={"public_address": "10.0.0.1"})
            ),
            {"public_address", "same_address_out"},
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_mends_it(
    sound: Looked, change: Callable[[Looked], Looked], checks: set[str]
) -> None:
    wrong = refused(change(sound))
    assert {check.check for check in wrong} == checks
    assert all(check.reason and check.remedy for check in wrong)


def test_a_machine_of_no_network_is_held_against_windrows_own_rules(sound: Looked) -> None:
    node = Node(name="gpu-0", transport="local")
    looked = replace(sound, node=node, facts=sound.facts.model_copy(update={"gpus": ()}))
    assert {check.network for check in preflight_checks(looked)} == {"windrow"}


def test_a_port_in_use_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = preflight.Asked(ports=(port,))
        measured = preflight.parse(preflight.answer(preflight.challenge(asked)))
    assert measured.busy_ports == (port,)
    assert ("127.0.0.1", port) in measured.listening


@pytest.mark.parametrize("name", ["../../etc", "a/../../b", "..", "/etc/passwd", ""])
def test_a_models_name_is_no_path(name: str) -> None:
    assert not preflight.measure(preflight.Asked(models=(name,))).models[0].whole


def test_a_callback_is_fetched_over_http_alone() -> None:
    assert preflight.measure(preflight.Asked(callback="file:///etc/passwd")).callback_answer is None


@pytest.mark.parametrize("data", [b"", b"[]", b'{"ports": ["80"]}', b'{"x": 1}', b"x" * (2 << 20)])
def test_a_request_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        preflight.answer(data)


@pytest.mark.parametrize(
    "change", [{"clock": -1}, {"listening": [80]}, {"listening": 5}, {"snap_mount": []}, {"x": 1}]
)
def test_measurements_of_another_form_are_refused(
    measured: preflight.Measured, change: dict[str, Any]
) -> None:
    fields = measured.model_dump(mode="json") | change
    with pytest.raises(preflight.BadMeasurement):
        preflight.parse(json.dumps(fields).encode())
