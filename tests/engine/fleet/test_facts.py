"""Facts of a machine: read here, believed nowhere before their form is checked."""

import json
import socket
from typing import Any

import psutil
import pytest

from windrow.engine.fleet import facts
from windrow.engine.fleet.fact_formats import (
    chutes_device,
    chutes_devices,
    gpu_id,
    perf_info,
    short_ref,
)
from windrow.networks.chutes.gpus import device_problem
from windrow.networks.compute_subnet.machines import fits

GPU = {"index": 0, "uuid": "GPU-1", "name": "x", "vram_bytes": 1, "vram_used_bytes": 0}


@pytest.fixture(scope="module")
def answer() -> bytes:
    return facts.answer(facts.challenge())


def gpu(**changes: Any) -> facts.GpuFacts:
    values = {
        "index": 0,
        "uuid": "GPU-0f6a6111-e308-2445-16ae-f733a7591246",
        "name": "NVIDIA L40S",
        "vram_bytes": 48_300_000_000,
        "vram_used_bytes": 0,
        "processors": 142,
        "clock_mhz": 2520.0,
        "memory_clock_mhz": 9001.0,
    }
    return facts.GpuFacts(**(values | changes))


def test_facts_are_of_this_machine(answer: bytes) -> None:
    found = facts.parse_facts(answer)
    assert found.hostname == socket.gethostname()
    assert found.ram_bytes == psutil.virtual_memory().total
    assert any(a.startswith("127.0.0.1/8") for i in found.interfaces for a in i.addresses)


@pytest.mark.parametrize(
    "change",
    [
        {"ram_bytes": -1},
        {"ram_bytes": 2**60},
        {"ram_bytes": "16"},
        {"cpu_mhz": 1e300},
        {"gpus": [{}] * 65},
        {"hostname": "x" * 300},
        {"surprise": 1},
        {"clock": None},
        {"gpus": {"0": 1}},
        {"cpu_cores": 2**31},
        {"driver": "R580"},
        {"driver": "580²"},
        {"cuda": "²"},
        {"gpus": [GPU | {"uuid": "cpu"}]},
        {"gpus": [GPU | {"uuid": "GPU-1\n"}]},
        {"gpus": [GPU | {"vram_bytes": 2**50}]},
        {"gpus": [GPU | {"processes": 2**40}]},
    ],
)
def test_facts_of_another_form_are_refused(answer: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(facts.BadFacts, match="wrong"):
        facts.parse_facts(json.dumps(json.loads(answer) | change).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b'{"clock": NaN}', b"[" * 100_000, b" " * (2 << 20)]
)
def test_bytes_that_are_no_facts_are_refused(data: bytes) -> None:
    with pytest.raises(facts.BadFacts):
        facts.parse_facts(data)


def test_the_networks_formats(answer: bytes) -> None:
    found = facts.parse_facts(answer).model_copy(
        update={
            "gpus": (gpu(), gpu(index=1)),
            "speeds": facts.Speeds(disk_read=1, disk_write=1, ram_read=1, ram_write=1),
        }
    )
    info = perf_info(found)
    assert info["gpu"]["count"] == 2
    assert info["gpu"]["capacity"] == 2 * (48_300_000_000 // 2**20)
    needs = {"cpu": {"count": 1}, "gpu": {"count": 2, "capacity": 1, "type": "l40s"}}
    assert fits(info, needs | {"hard_disk": {"capacity": 1}, "ram": {"capacity": 1}})
    assert device_problem(chutes_device(gpu(), "l40s")) is None
    devices = chutes_devices(found, "l40s")
    assert [device["device_index"] for device in devices] == [0, 1]
    assert devices[0]["uuid"] == gpu_id(gpu().uuid) == "0f6a6111e308244516aef733a7591246"


def test_a_machine_without_gpus_describes_none(answer: bytes) -> None:
    found = facts.parse_facts(answer).model_copy(update={"gpus": ()})
    assert perf_info(found)["gpu"] == {}
    assert chutes_devices(found, "l40s") == []


def test_a_card_nobody_knows_has_no_short_reference() -> None:
    assert short_ref(gpu(name="Tesla T4")) is None
    assert short_ref(gpu()) == "l40s"


def test_speeds_are_measured_when_asked() -> None:
    found = facts.parse_facts(facts.answer(facts.challenge(speeds=True)))
    assert found.speeds is not None
    assert min(found.speeds.model_dump().values()) > 0
