"""What compute-subnet would say of a node's answers to its own test, weaknesses included (§7.2).

Asker side of `engine.fleet.network_gemm`. The size of the matrices, the benchmark and the times
of the products are the node's own word, as they are there; what Windrow makes of the size is for
whoever asked. A size beyond what any card holds is refused here, where the network would try it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from windrow.engine.fleet.frames import BadFrame, unpack
from windrow.engine.fleet.network_gemm import MAX_GPUS, MAX_N, Job
from windrow.networks.compute_subnet.gpu_proof import (
    PROOF_SHARE,
    SECONDS_ALLOWED,
    BadProofOutput,
    Benchmark,
    JobReport,
    OpenedRow,
    gpus_needed,
    matrix_size,
    network_accepts_row,
    network_in_time,
    network_job_result,
    parse_benchmark,
    parse_proof,
)

MAX_PRINTED: Final = 1 << 16
"""Bytes of what a mode prints; eight GPUs take about 2 KiB."""


@dataclass(frozen=True)
class Committed:
    """What mode `compute` said. n: of the node's own first timing, as the network takes it (§7.2,
    step 10); roots by GPU; seconds: of each multiplication, one an entry of the timings."""

    n: int
    roots: Mapping[int, bytes]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """What the network makes of a test. credited: model and GPUs, None where it refuses; needed:
    seconds it allows; reason: why it refuses."""

    credited: tuple[str, int] | None
    needed: float
    reason: str


def read_benchmark(data: bytes) -> tuple[tuple[str, ...], Benchmark | None]:
    """Names of the GPUs the script counts, and its benchmark; None without a GPU.

    Raises BadProofOutput.
    """
    first, _, rest = _text(data).partition("\n")
    try:
        said = json.loads(first)
        count, names = said["num_gpus"], said["gpu_names"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise BadProofOutput("the script does not say which GPUs there are") from None
    if (
        type(count) is not int
        or not isinstance(names, list)
        or not all(isinstance(name, str) and _plain(name) for name in names)
        or not 0 <= count == len(names) <= MAX_GPUS
    ):
        raise BadProofOutput(f"the script counts {str(count)[:40]} GPUs and does not name as many")
    return tuple(names), parse_benchmark(rest) if count else None


def proof_size(benchmark: Benchmark) -> int:
    """Rows of the matrices the network asks for (§7.2, step 7). Raises BadProofOutput."""
    if not 0 < benchmark.vram < 1e4:
        raise BadProofOutput(f"a block of {benchmark.vram} GB is no card's")
    n = matrix_size(benchmark.vram, 4, PROOF_SHARE)
    if not 0 < n <= MAX_N:
        raise BadProofOutput(f"{benchmark.vram} GB give matrices of {n} rows, which no card's do")
    return n


def read_compute(data: bytes, job: Job) -> Committed:
    """Roots and times that mode `compute` printed. Raises BadProofOutput."""
    printed = parse_proof(_text(data))
    roots: dict[int, bytes] = {}
    for gpu, root in printed.roots:
        if gpu in roots or gpu not in {asked for asked, *_ in job.seeds}:
            raise BadProofOutput(f"a root of GPU {gpu}, which was not asked, or was before")
        try:
            roots[gpu] = bytes.fromhex(root)
        except ValueError:
            roots[gpu] = b""  # no row leads there
    if not printed.timings or len(printed.timings) > MAX_GPUS:
        raise BadProofOutput(f"times of {len(printed.timings)} GPUs")
    n = printed.timings[0][1].get("n")
    if type(n) is not int or not 0 < n <= MAX_N:
        raise BadProofOutput(f"matrices of {str(n)[:40]} rows, it says")
    return Committed(n, roots, tuple(_seconds(timing) for _, timing in printed.timings))


def rows_limit(job: Job, committed: Committed) -> int:
    """Most bytes the answer to mode `proof` may have."""
    return len(job.seeds) * (4 * committed.n + _width(committed.n)) + (1 << 16)


def accepted_rows(
    job: Job,
    committed: Committed,
    cells: Sequence[tuple[int, tuple[int, int]]],
    data: bytes,
) -> dict[int, bool]:
    """Whether the network takes the opened cell of each GPU asked. Raises BadProofOutput.

    cells: in the order of the job's seeds, as `proof_request` was given them.
    """
    g, width = len(job.seeds), _width(committed.n)
    try:
        _, arrays = unpack(
            data,
            max_bytes=rows_limit(job, committed),
            expected={"rows": ("f4", (g, committed.n)), "proofs": ("u1", (g, width))},
        )
    except BadFrame as error:
        raise BadProofOutput(str(error)) from error
    rows, proofs = arrays["rows"], arrays["proofs"]
    if len(rows) != g or len(proofs) != g or proofs.shape[1] % 32:
        raise BadProofOutput("rows or proofs are missing")
    taken = {}
    for index, ((gpu, seed_a, seed_b), (_, cell)) in enumerate(zip(job.seeds, cells, strict=True)):
        siblings = [proofs[index, at : at + 32].tobytes() for at in range(0, proofs.shape[1], 32)]
        root = committed.roots.get(gpu, b"")
        opened = OpenedRow(seed_a, seed_b, cell, root, rows[index], siblings)
        taken[gpu] = bool(network_accepts_row(opened, committed.n))
    return taken


def network_verdict(
    names: Sequence[str],
    benchmark: Benchmark,
    committed: Committed,
    rows: Mapping[int, bool],
    elapsed: float,
) -> Verdict:
    """What the network credits a node with, or why nothing. elapsed: of mode `compute`.

    The script is taken for unchanged: Windrow sends none.
    """
    # An entry of the timings counts as a GPU, whether its row was opened or not.
    right = [rows[gpu] for gpu in committed.roots if gpu in rows]
    report = JobReport(True, names, benchmark, elapsed, committed.seconds, right)
    gpus = len(committed.seconds)
    needed = SECONDS_ALLOWED + gpus * benchmark.time32
    credited = network_job_result(report)
    reason = ""
    if credited is None and not network_in_time(elapsed, gpus, committed.seconds, benchmark.time32):
        mean = sum(committed.seconds) / gpus
        reason = (
            f"{elapsed:.3g} s, {mean:.3g} s a product; it allows {needed:.3g} s, and less than the "
            f"benchmark's {benchmark.time32:.3g} s"
        )
    elif credited is None:
        reason = f"{sum(right)} of {gpus} opened cells are right; {gpus_needed(gpus)} are needed"
    return Verdict(credited, needed, reason)


def _plain(name: str) -> bool:
    """Whether it can be a card's name, and be written to a row: half a surrogate pair cannot."""
    return len(name) <= 128 and name.isprintable()


def _text(data: bytes) -> str:
    if len(data) > MAX_PRINTED:
        raise BadProofOutput(f"the script printed {len(data)} bytes; {MAX_PRINTED} are read")
    return data.decode(errors="replace")


def _seconds(timing: Mapping[str, Any]) -> float:
    seconds = timing.get("multiplication_time")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise BadProofOutput("a timing without a multiplication_time")
    try:
        return float(seconds)
    except OverflowError:
        return math.inf


def _width(n: int) -> int:
    return 32 * (n - 1).bit_length()
