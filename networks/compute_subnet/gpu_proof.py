"""The network's GPU proof: sizes, matrices from seeds, the opened cell, the verdict (§7).

Reproduced with its weaknesses, so that an operator sees what the network will say. What it shows
of a machine is little (§13); Windrow's own proof is `engine.fleet.gemm_proof`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.kernels.row_tree import root_from, row_hashes
from windrow.networks.compute_subnet.gpu_models import Measured, network_model

PROOF_SHARE: Final = 0.10
"""Share of the memory the proof's matrices are sized for."""
SECONDS_ALLOWED: Final = 5.0
MOST_OUTPUT: Final = 1 << 20


class BadProofOutput(WindrowError):
    """What a miner's script printed cannot be read."""


def matrix_size(vram: float, element_bytes: int, factor: float) -> int:
    """Rows of square matrices for `factor` of so many GB (10^9 bytes), a multiple of 32 (§7.3)."""
    return int(math.sqrt(vram * factor * 10**9 / (2 * element_bytes))) // 32 * 32


def states(seed: int, sums: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Generator states of the cells whose i + j are `sums`, of the same shape (§7.5).

    Only the low 32 bits of a seed count, and cells of one anti-diagonal are equal.
    """
    state = ((np.asarray(sums, np.uint64) + np.uint64(seed & 0xFFFFFFFF)) & 0xFFFFFFFF).astype(
        np.uint32
    )
    for _ in range(10):
        state ^= state << np.uint32(13)
        state ^= state >> np.uint32(17)
        state ^= state << np.uint32(5)
    return state


def validator_cells(seed: int, sums: NDArray[np.integer]) -> NDArray[np.float64]:
    """Cells as the validator computes them, in float64 (§7.5)."""
    return states(seed, sums) / np.float64(4294967295)


def miner_matrix(seed: int, n: int) -> NDArray[np.float32]:
    """A matrix [n, n] as the miner computes it: the integer is rounded to float32 first (§7.5)."""
    index = np.arange(n)
    cells = states(seed, index[:, None] + index[None, :]).astype(np.float32)
    return cells / np.float32(4294967295)


@dataclass(frozen=True)
class OpenedRow:
    """One GPU's answer: the row its challenged cell is in, with its proof."""

    seed_a: int
    seed_b: int
    cell: tuple[int, int]
    root: bytes
    row: NDArray[np.float32]
    proof: Sequence[bytes]


def network_accepts_row(opened: OpenedRow, n: int) -> bool:
    """Whether the network accepts one opened cell of matrices of the size the miner said (§7.5)."""
    i, j = opened.cell
    index = np.arange(n)
    a = validator_cells(opened.seed_a, i + index).astype(np.float32)
    b = validator_cells(opened.seed_b, index + j).astype(np.float32)
    expected = np.float32(np.dot(a, b))
    if not 0 <= j < len(opened.row):
        return False
    claimed = opened.row[j]
    if not abs(claimed - expected) <= 1e-5 + 1e-5 * abs(expected):
        return False
    return root_from(row_hashes(opened.row[None])[0], i, opened.proof) == opened.root


def gpus_needed(gpus: int) -> int:
    """Opened rows that must be right: all up to three, three quarters beyond (§7.5)."""
    return gpus if gpus <= 3 else math.ceil(0.75 * gpus)


@dataclass(frozen=True)
class Benchmark:
    """What a miner's benchmark printed. vram: GB (10^9 bytes); times in seconds."""

    gpus: int
    vram: float
    size16: int
    time16: float
    size32: int
    time32: float

    @property
    def tflops16(self) -> float:
        """Half precision, 10^12 operations per second."""
        return 2 * self.size16**3 / self.time16 / 1e12

    @property
    def tflops32(self) -> float:
        """Single precision, 10^12 operations per second."""
        return 2 * self.size32**3 / self.time32 / 1e12


def parse_benchmark(output: str) -> Benchmark:
    """The benchmark's one line (§7.2, step 5). Raises BadProofOutput."""
    words = output[:MOST_OUTPUT].split()
    try:
        gpus, vram, size16, time16, size32, time32 = words
        found = Benchmark(
            int(gpus), float(vram), int(size16), float(time16), int(size32), float(time32)
        )
    except ValueError:
        raise BadProofOutput(
            f"the benchmark printed {output[:80]!r}; six numbers were expected: GPUs, memory, and "
            "size and time in half and in single precision"
        ) from None
    try:
        if found.time16 > 0 and found.time32 > 0 and math.isfinite(found.tflops32):
            _ = found.tflops16
            return found
    except OverflowError:
        raise BadProofOutput("the benchmark printed a size beyond any number") from None
    raise BadProofOutput("the benchmark printed a time that is not above 0")


@dataclass(frozen=True)
class ProofOutput:
    """What a miner's proof printed: root by GPU, and the times it says it took."""

    roots: Sequence[tuple[int, str]]
    timings: Sequence[tuple[int, Mapping[str, Any]]]


def parse_proof(output: str) -> ProofOutput:
    """Roots and timings from a proof's output (§7.2, step 8). Raises BadProofOutput."""
    found: dict[str, Any] = {}
    for line in output[:MOST_OUTPUT].splitlines():
        for name in ("Root hashes", "Timings"):
            if line.startswith(f"{name}: "):
                try:
                    found[name] = json.loads(line[len(name) + 2 :])
                except (ValueError, RecursionError):
                    raise BadProofOutput(f"the line of {name} is no JSON") from None
    if len(found) != 2:
        raise BadProofOutput("the proof printed no line of root hashes, or none of timings")
    try:
        return ProofOutput(
            [(int(gpu), str(root)) for gpu, root in found["Root hashes"]],
            [(int(gpu), dict(timing)) for gpu, timing in found["Timings"]],
        )
    except (TypeError, ValueError, OverflowError):
        raise BadProofOutput("root hashes and timings must be lists of pairs") from None


def network_in_time(
    elapsed: float, gpus: int, multiplication_times: Sequence[float], time32: float
) -> bool:
    """Whether the network takes a proof for fast enough (§7.2, step 9).

    elapsed: seconds by the validator's clock; the bound is the miner's own benchmark.
    """
    mean = sum(multiplication_times) / len(multiplication_times)
    return elapsed < SECONDS_ALLOWED + gpus * time32 and mean < time32


@dataclass(frozen=True)
class JobReport:
    """What one test of a node brought, with the names of §7.2.

    reported_models: as the node says; elapsed: seconds by the validator's clock;
    multiplication_times: as the node says, one a GPU; rows_right: verdict on every opened row.
    """

    script_matches: bool
    reported_models: Sequence[str]
    benchmark: Benchmark
    elapsed: float
    multiplication_times: Sequence[float]
    rows_right: Sequence[bool]


def network_job_result(report: JobReport) -> tuple[str, int] | None:
    """Model and number of GPUs the network credits, or None (§7.2).

    The matrices' size is not looked at: it is the node's own, whatever was asked for.
    """
    gpus = len(report.multiplication_times)
    bench = report.benchmark
    if not report.script_matches or not report.reported_models or not gpus:
        return None
    if not network_in_time(report.elapsed, gpus, report.multiplication_times, bench.time32):
        return None
    if sum(report.rows_right) < gpus_needed(gpus):
        return None
    measured = Measured(bench.tflops16, bench.tflops32, bench.vram)
    return network_model(measured, report.reported_models[0]), gpus
