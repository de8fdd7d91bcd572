"""The product in the network's format: what the node prints, and what the network makes of it."""

import json

import numpy as np
import pytest
import torch

from windrow.engine.fleet import network_gemm, tasks
from windrow.engine.fleet.frames import pack, unpack
from windrow.engine.fleet.network_gemm import Job, proof_request
from windrow.engine.fleet.network_gemm_verify import (
    accepted_rows,
    network_verdict,
    proof_size,
    read_benchmark,
    read_compute,
)
from windrow.engine.fleet.tasks import BadRequest
from windrow.networks.compute_subnet.gpu_proof import (
    BadProofOutput,
    Benchmark,
    miner_matrix,
    parse_benchmark,
)

N = 64
JOB = Job(N, ((0, 2**63 + 5, 7),))
BENCHMARK = Benchmark(1, 17.18, 65536, 1.0, 32768, 2.0)


def computed(job: Job = JOB) -> bytes:
    return tasks.answer("network_gemm.compute", job.to_bytes())


def proved(cell: tuple[int, int], job: Job = JOB) -> bytes:
    return tasks.answer("network_gemm.proof", proof_request(job, [(0, cell)]))


@pytest.mark.parametrize("cell", [(0, 0), (63, 63), (17, 40)])
def test_the_network_takes_every_cell_of_an_honest_product(cell: tuple[int, int]) -> None:
    committed = read_compute(computed(), JOB)
    rows = accepted_rows(JOB, committed, [(0, cell)], proved(cell))
    assert (committed.n, rows) == (N, {0: True})
    said = network_verdict(["NVIDIA L40s"], BENCHMARK, committed, rows, 1.0)
    assert said.credited is not None
    assert (said.credited[1], said.needed, said.reason) == (1, 7.0, "")


def test_the_matrices_are_the_networks() -> None:
    made = network_gemm._matrix(2**63 + 5, 33, torch.device("cpu"))
    assert np.array_equal(made.numpy(), miner_matrix(2**63 + 5, 33))


def test_a_changed_row_is_not_taken() -> None:
    committed, cell = read_compute(computed(), JOB), (5, 6)
    for column in (6, 7):
        bounds = {"rows": ("f4", (1, N)), "proofs": ("u1", (1, 32 * 6))}
        _, arrays = unpack(proved(cell), max_bytes=1 << 16, expected=bounds)
        arrays["rows"][0, column] += np.float32(1)
        rows = accepted_rows(JOB, committed, [(0, cell)], pack({}, arrays))
        assert rows == {0: False}
        said = network_verdict(["NVIDIA L40s"], BENCHMARK, committed, rows, 1.0)
        assert (said.credited, said.reason) == (None, "0 of 1 opened cells are right; 1 are needed")


def test_the_node_chooses_its_size_and_the_network_takes_it() -> None:
    small = Job(8, JOB.seeds)
    committed = read_compute(computed(small), JOB)
    assert committed.n == 8
    rows = accepted_rows(JOB, committed, [(0, (3, 4))], proved((3, 4), small))
    assert network_verdict(["NVIDIA L40s"], BENCHMARK, committed, rows, 1.0).credited is not None


def test_too_slow_by_the_benchmark_of_its_own() -> None:
    committed = read_compute(computed(), JOB)
    said = network_verdict(["NVIDIA L40s"], BENCHMARK, committed, {0: True}, 7.0)
    assert said.credited is None
    assert "it allows 7 s" in said.reason


def test_a_benchmark_of_any_device() -> None:
    cpu = torch.device("cpu")
    assert network_gemm.largest_block(cpu, limit=1 << 28) == 1 << 28
    said = parse_benchmark(network_gemm.benchmark_line(1, 10_000_000, cpu))
    assert (said.gpus, said.vram, said.size16, said.size32) == (1, 0.01, 1568, 768)
    assert proof_size(said) == 352
    assert proof_size(BENCHMARK) == 14624


def test_what_the_benchmark_may_say() -> None:
    line = '{"num_gpus": 1, "gpu_names": ["NVIDIA L40s"]}\n1 17.18 65536 1.5 32768 2.5\n'
    names, benchmark = read_benchmark(line.encode())
    assert names == ("NVIDIA L40s",)
    assert benchmark == Benchmark(1, 17.18, 65536, 1.5, 32768, 2.5)
    assert read_benchmark(b'{"num_gpus": 0, "gpu_names": []}') == ((), None)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[" * 10_000,
        b'{"num_gpus": 2, "gpu_names": ["one"]}\n2 17 1 1 1 1',
        b'{"num_gpus": 99999, "gpu_names": []}',
        b'{"num_gpus": 1, "gpu_names": ["x"]}\n1 17 1 nan 1 0',
        b'{"num_gpus": 1, "gpu_names": ["\\ud800"]}\n1 17 1 1 1 1',
        b'{"num_gpus": 1, "gpu_names": ["x"]}\n1 17 ' + b"9" * 400 + b" 1 1 1",
        b'{"num_gpus": 1, "gpu_names": ["x"]}\n1 17 1 1 ' + b"9" * 400 + b" 1",
        bytes(1 << 17),
    ],
)
def test_a_hostile_benchmark_is_named(said: bytes) -> None:
    with pytest.raises(BadProofOutput):
        read_benchmark(said)


@pytest.mark.parametrize("vram", [float("nan"), float("inf"), -1.0, 0.0, 1e-9, 9e3])
def test_no_size_of_a_card_that_cannot_be(vram: float) -> None:
    with pytest.raises(BadProofOutput):
        proof_size(Benchmark(1, vram, 1, 1.0, 1, 1.0))


@pytest.mark.parametrize(
    "change",
    [
        {"n": 10**12},
        {"n": -1},
        {"n": True},
        {"n": "64"},
        {"multiplication_time": "fast"},
        {"multiplication_time": None},
    ],
)
def test_hostile_times_are_named(change: dict[str, object]) -> None:
    timing = {"n": N, "multiplication_time": 0.1} | change
    printed = f'Root hashes: [[0, "00"]]\nTimings: {json.dumps([[0, timing]])}\n'
    with pytest.raises(BadProofOutput):
        read_compute(printed.encode(), JOB)


@pytest.mark.parametrize("roots", ['[[1, "00"]]', '[[0, "00"], [0, "00"]]', '[[Infinity, "00"]]'])
def test_roots_of_others_are_not_taken(roots: str) -> None:
    printed = f'Root hashes: {roots}\nTimings: [[0, {{"n": 8, "multiplication_time": 1}}]]\n'
    with pytest.raises(BadProofOutput):
        read_compute(printed.encode(), JOB)


def test_a_time_that_is_no_number_is_refused_and_nothing_breaks() -> None:
    printed = 'Root hashes: [[0, "zz"]]\nTimings: [[0, {"n": 64, "multiplication_time": NaN}]]\n'
    committed = read_compute(printed.encode(), JOB)
    rows = accepted_rows(JOB, committed, [(0, (1, 2))], proved((1, 2)))
    assert rows == {0: False}
    assert network_verdict(["x"], BENCHMARK, committed, rows, 1.0).credited is None


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"64",
        b"64\n0 1",
        b"64\n0 1 2\n0 3 4",
        b"65537\n0 1 2",
        b"0\n0 1 2",
        b"64\n16 1 2",
        b"64\n0 -1 2",
        b"64\n0 1 18446744073709551616",
        "64\n0 1 ²".encode(),
        b"64\n" + b"0 1 2\n" * 10_000,
    ],
)
def test_a_node_refuses_what_is_no_job(request_: bytes) -> None:
    with pytest.raises(BadRequest):
        tasks.answer("network_gemm.compute", request_)


@pytest.mark.parametrize("cells", [[], [(0, (64, 0))], [(0, (1, 1)), (0, (2, 2))], [(1, (1, 1))]])
def test_a_node_refuses_cells_that_are_none(cells: list[tuple[int, tuple[int, int]]]) -> None:
    with pytest.raises(BadRequest):
        tasks.answer("network_gemm.proof", proof_request(JOB, cells))
