"""The matrix product both ways: what the network says of a node, and what is true."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import SMALL, FleetHome, Machine, served, told
from windrow.engine.fleet import tasks
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.tasks import BadRequest

CARD = {
    "index": 0,
    "uuid": "GPU-1",
    "name": "NVIDIA L40s",
    "vram_bytes": 48 << 30,
    "vram_used_bytes": 0,
}
PRINTED = b'{"num_gpus": 1, "gpu_names": ["NVIDIA L40s"]}\n1 0.0014 49024 1.4 32768 2.0\n'
"""A benchmark of a card whose memory gives matrices of 128 rows."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[FleetHome]:
    made = FleetHome.make(tmp_path, replace(SMALL, gpu_matrix=128))
    yield made
    made.fleet.close()


def found(home: FleetHome, machine: Machine, **declared: Any) -> dict[str, tuple[Any, Any, str]]:
    """Verdicts of the network and of Windrow with the reason, by check."""
    with served(home.agent(machine)) as port:
        home.declare({"n": port}, ["compute-subnet"], **declared)
        assert home.verify("n", ["inventory", "facts"])
        assert home.verify("n", ["gemm_proof"])
    return {
        row["check"]: (row["network_verdict"], row["windrow_verdict"], row["reason"])
        for row in home.checks()
        if row["stage"] == "gemm_proof"
    }


def carded(**modes: Callable[[bytes], bytes]) -> Machine:
    """A processor that says it is a card, and reports the benchmark of one.

    modes: what the network's script does instead, by mode.
    """
    modes = {"benchmark": lambda _: PRINTED} | modes
    script = {f"network_gemm.{mode}": act for mode, act in modes.items()}
    return Machine({"facts": told(gpus=[CARD])} | script)


def test_a_processor_has_the_networks_verdict_on_its_product_alone(home: FleetHome) -> None:
    checks = found(home, Machine())
    assert checks["gemm_product"] == (True, True, "")
    network, windrow, reason = checks["gemm_job"]
    assert (network, windrow) == (None, None)
    assert "finds no GPU" in reason


def test_an_honest_card_has_both_verdicts(home: FleetHome) -> None:
    checks = found(home, carded(), gpu="l40s", gpu_count=1)
    assert checks["gemm_product"] == (True, True, "")
    assert checks["gemm_job"][:2] == (True, True)
    (row,) = [row for row in home.checks() if row["check"] == "gemm_job"]
    assert 0 < row["measured"] < row["needed"] == 7.0


def test_matrices_of_eight_rows_pass_there_and_not_here(home: FleetHome) -> None:
    def smaller(seeds: bytes) -> bytes:
        return b"8\n" + seeds.partition(b"\n")[2]

    def compute(request: bytes) -> bytes:
        return tasks.answer("network_gemm.compute", smaller(request))

    def proof(request: bytes) -> bytes:
        asked = from_json(request)
        seeds = smaller(asked["seeds"].encode()).decode()
        return tasks.answer("network_gemm.proof", to_json(asked | {"seeds": seeds}))

    cheat = carded(compute=compute, proof=proof)
    checks = found(home, cheat, gpu="l40s", gpu_count=1)
    assert checks["gemm_product"] == (True, True, "")
    assert checks["gemm_job"] == (True, False, "matrices of 8 rows, where 128 were asked for")


def test_a_benchmark_of_another_card_is_said(home: FleetHome) -> None:
    slow = PRINTED.replace(b"1.4 32768 2.0", b"9.0 32768 20.0")
    machine = carded(benchmark=lambda _: slow)
    network, windrow, reason = found(home, machine, gpu="l40s", gpu_count=1)["gemm_job"]
    assert (network, windrow) == (True, True)
    assert "it is credited as NVIDIA L4, and says it is NVIDIA L40s" in reason


def test_a_node_that_fails_the_networks_test_alone(home: FleetHome) -> None:
    def broken(_request: bytes) -> bytes:
        raise BadRequest("no such script")

    checks = found(home, carded(compute=broken), gpu="l40s", gpu_count=1)
    assert checks["gemm_product"] == (None, True, "")
    assert checks["gemm_job"][:2] == (False, True)
    assert "no such script" in checks["gemm_job"][2]


def test_a_declared_card_that_no_script_finds(home: FleetHome) -> None:
    checks = found(home, Machine({"facts": told(gpus=[CARD])}), gpu="l40s", gpu_count=1)
    assert checks["gemm_job"][:2] == (False, True)
    assert "finds no GPU" in checks["gemm_job"][2]
