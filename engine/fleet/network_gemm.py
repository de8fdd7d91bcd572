"""The matrix product in compute-subnet's own format, made as its script makes it (§7.2, §7.5).

Node side: what the script's modes print and hand over, so that an operator sees the network's
verdict before the network does. It proves little (§13): `engine.fleet.gemm_proof` is what Windrow
believes. Requests are the files that the network writes, `seeds.txt` and `challenge_indices.txt`;
rows come in a frame, for the network reads them by unpickling.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from windrow.engine.fleet.attestation import NotEnoughMemory
from windrow.engine.fleet.frames import BadFrame, from_json, pack, to_json
from windrow.engine.fleet.gpu_facts import DeviceFailed
from windrow.engine.fleet.tasks import BadRequest
from windrow.kernels.row_tree import row_hashes, row_proof, tree_levels
from windrow.networks.compute_subnet.gpu_proof import matrix_size, states

MAX_N: Final = 1 << 16
MAX_GPUS: Final = 16
MAX_SEED: Final = 1 << 64
FIRST_BLOCK: Final = 1 << 28
"""Bytes the search for the largest block of memory begins with; every card has as many."""


@dataclass(frozen=True)
class Job:
    """What `seeds.txt` says. seeds: GPU, seed A and seed B of each, 64 bits."""

    n: int
    seeds: tuple[tuple[int, int, int], ...]

    def to_bytes(self) -> bytes:
        """First line n, then one a GPU."""
        lines = [str(self.n), *(" ".join(map(str, seed)) for seed in self.seeds)]
        return "\n".join(lines).encode()

    @classmethod
    def parse(cls, data: bytes) -> "Job":
        """Raises BadRequest."""
        first, *rest = _numbers(data, limits=(MAX_GPUS, MAX_SEED, MAX_SEED))
        gpus = [gpu for gpu, *_ in rest]
        if not 0 < first[0] <= MAX_N or not 0 < len(set(gpus)) == len(gpus) <= MAX_GPUS:
            raise BadRequest(
                f"a job of n = {first[0]} for {len(gpus)} GPUs; n is at most {MAX_N}, and 1 to "
                f"{MAX_GPUS} different GPUs work"
            )
        return cls(first[0], tuple((gpu, a, b) for gpu, a, b in rest))


def proof_request(job: Job, cells: Sequence[tuple[int, tuple[int, int]]]) -> bytes:
    """The request of mode `proof`. cells: GPU, then row and column, of each."""
    lines = "\n".join(f"{gpu} {i},{j}" for gpu, (i, j) in cells)
    return to_json({"seeds": job.to_bytes().decode(), "cells": lines})


def answer_benchmark(request: bytes) -> bytes:
    """What modes `gpu_info` and `benchmark` print, a line each; without a GPU only the first.

    Raises BadRequest, NotEnoughMemory, DeviceFailed.
    """
    if request:
        raise BadRequest("the benchmark takes no arguments")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    lines = [json.dumps({"num_gpus": count, "gpu_names": names})]
    if count:
        with _guarded(device := torch.device("cuda", 0)):
            lines.append(benchmark_line(count, largest_block(device), device))
    return ("\n".join(lines) + "\n").encode()


def answer_compute(request: bytes) -> bytes:
    """What mode `compute` prints. request: `seeds.txt`. Raises as `answer_benchmark`."""
    job = Job.parse(request)
    roots, timings = [], []
    for gpu, seed_a, seed_b in job.seeds:
        with _guarded(device := _device(gpu)):
            product, timing = _product(job.n, seed_a, seed_b, device)
        began = time.perf_counter()
        root = tree_levels(row_hashes(product))[-1][0]
        timing["merkle_tree_time"] = time.perf_counter() - began
        roots.append([gpu, root.hex()])
        timings.append([gpu, timing])
    return f"Root hashes: {json.dumps(roots)}\nTimings: {json.dumps(timings)}\n".encode()


def answer_proof(request: bytes) -> bytes:
    """What mode `proof` leaves: rows float32 [g, n], and proofs uint8 [g, 32 times the levels].

    GPUs are in the request's order; products are made again. Raises as `answer_benchmark`.
    """
    job, cells = _proof_asked(request)
    rows, proofs = [], []
    for gpu, seed_a, seed_b in job.seeds:
        with _guarded(device := _device(gpu)):
            product, _ = _product(job.n, seed_a, seed_b, device)
        levels = tree_levels(row_hashes(product))
        rows.append(product[cells[gpu]].copy())
        proofs.append(np.frombuffer(b"".join(row_proof(levels, cells[gpu])), np.uint8))
    return pack({}, {"rows": np.stack(rows), "proofs": np.stack(proofs)})


def largest_block(device: torch.device, limit: int = 1 << 62) -> int:
    """Largest power of two of bytes that fits while half of it is still held (§7.2, step 5)."""
    held, size = torch.empty(0, device=device), FIRST_BLOCK
    while size <= limit:
        try:
            held = torch.empty(size, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError:
            break
        size *= 2
    del held
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return size // 2


def benchmark_line(gpus: int, block: int, device: torch.device) -> str:
    """The six numbers of mode `benchmark`: one product in half and one in single precision."""
    vram = block / 1e9
    words = [f"{gpus} {vram:.2f}"]
    for dtype, size, factor in ((torch.float16, 2, 1.0), (torch.float32, 4, 0.5)):
        n = matrix_size(round(vram, 2), size, factor)
        words.append(f"{n} {_seconds_of_product(n, dtype, device)}")
    return " ".join(words)


def _seconds_of_product(n: int, dtype: torch.dtype, device: torch.device) -> float:
    left, right = (torch.rand((n, n), dtype=dtype, device=device) for _ in range(2))
    _wait_for(device)
    began = time.perf_counter()
    product = left @ right
    _wait_for(device)
    seconds = time.perf_counter() - began
    del left, right, product
    return seconds


def _product(
    n: int, seed_a: int, seed_b: int, device: torch.device
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """The product float32 [n, n], and the times that the script reports of it."""
    began = time.perf_counter()
    left, right = _matrix(seed_a, n, device), _matrix(seed_b, n, device)
    _wait_for(device)
    made = time.perf_counter()
    product = left @ right
    _wait_for(device)
    multiplied = time.perf_counter()
    here = product.cpu().numpy()
    return here, {
        "generation_time": made - began,
        "n": n,
        "multiplication_time": multiplied - made,
        "transfer_back_time": time.perf_counter() - multiplied,
    }


def _matrix(seed: int, n: int, device: torch.device) -> torch.Tensor:
    """`gpu_proof.miner_matrix` on a device: a cell depends on i + j alone, so 2n - 1 are made."""
    cells = states(seed, np.arange(2 * n - 1)).astype(np.float32) / np.float32(4294967295)
    return torch.from_numpy(cells).to(device).unfold(0, n, 1).contiguous()


def _device(gpu: int) -> torch.device:
    """A GPU by its number; a machine without one works as GPU 0. Raises BadRequest."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu >= max(count, 1):
        raise BadRequest(f"there is no GPU {gpu}; this node has {count}")
    return torch.device("cuda", gpu) if count else torch.device("cpu")


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _guarded(device: torch.device) -> Iterator[None]:
    """Names what a device does wrong. Raises NotEnoughMemory, DeviceFailed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemory(
            f"{device} ran out of memory in the network's test; end what else runs on it"
        ) from error
    except RuntimeError as error:  # what torch raises when a GPU falls off the bus
        raise DeviceFailed(
            f"{device} failed: {str(error)[:300]}; look at the kernel's log for Xid"
        ) from error
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _proof_asked(request: bytes) -> tuple[Job, dict[int, int]]:
    """The job, and the row to open of each GPU. Raises BadRequest."""
    try:
        fields: dict[str, Any] = from_json(request, max_bytes=1 << 16)
    except BadFrame as error:
        raise BadRequest(f"no request of a proof: {error}") from error
    seeds, cells = fields.get("seeds"), fields.get("cells")
    if not isinstance(seeds, str) or not isinstance(cells, str):
        raise BadRequest("a request of a proof holds seeds and cells, as text")
    job = Job.parse(seeds.encode())
    asked = _numbers(f"0\n{cells}".replace(",", " ").encode(), limits=(MAX_GPUS, job.n, job.n))[1:]
    rows = {gpu: row for gpu, row, _ in asked}
    if len(asked) != len(job.seeds) or rows.keys() != {gpu for gpu, *_ in job.seeds}:
        raise BadRequest("a request of a proof names one cell of each GPU of its seeds")
    return job, rows


def _numbers(data: bytes, *, limits: tuple[int, int, int]) -> list[list[int]]:
    """Lines of numbers: one in the first, three below their limits in each other."""
    if len(data) > 1 << 14 or not data.isascii():
        raise BadRequest("seeds and cells are at most 16 KiB of ASCII text")
    lines = [line.split() for line in data.decode().strip().splitlines()]
    if not all(word.isdigit() and len(word) <= 20 for line in lines for word in line):
        raise BadRequest("seeds and cells are whole numbers")
    found = [[int(word) for word in line] for line in lines]
    if [len(line) for line in found] != [1, *[3] * (len(found) - 1)]:
        raise BadRequest("a line of seeds or cells has three numbers")
    for line in found[1:]:
        if any(number >= limit for number, limit in zip(line, limits, strict=True)):
            raise BadRequest(f"{line} is beyond what a job may ask for")
    return found
