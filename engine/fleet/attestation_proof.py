"""What the traces of an attestation are held against: rows that the asker computes itself.

Rows of the matrices depend on no other rows, so a few of them, which the node is never told, lead
through the whole chain at s / n of its work. Everything a node sends has an entry for every row:
one byte a matrix in the slices, one residue in the sums of the second round, eight bytes a step in
the traces of the walk. It cannot know in which rows they are looked at.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from windrow.engine.fleet.attestation_plan import COLUMNS, Plan
from windrow.engine.fleet.attestation_work import BATCH, residency_columns, trace_of, walk_columns
from windrow.kernels import mersenne, sgp1
from windrow.kernels.exact_matmul import exact_product

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ErrorBounds:
    """Largest chance that a device passes without a share `missing` of the work.

    rows: it lacks that share of the rows of any of its matrices, whenever it is asked for them.
    walk: it left out that share of the walk's steps.
    """

    missing: float
    rows: float
    walk: float


def error_bounds(plan: Plan, rows: int, steps: int, missing: float) -> ErrorBounds:
    """Bounds for so many rows recomputed and steps opened, at most all there are.

    A row that is missing or wrong still gives the right residue by a chance below 2^-60.
    """
    rows, steps = min(rows, plan.n), min(steps, plan.steps)
    return ErrorBounds(
        missing,
        rows=_unseen(plan.n, math.ceil(missing * plan.n), rows) + 2.0**-60,
        walk=_unseen(plan.steps, math.ceil(missing * plan.steps), steps),
    )


def _unseen(population: int, wrong: int, drawn: int) -> float:
    """The chance that a draw without replacement meets none of the wrong ones."""
    return math.comb(population - wrong, drawn) / math.comb(population, drawn)


@dataclass
class Trail:
    """What the rows of one device's matrices lead to, in the asker's own computation.

    rows: their numbers [s]; slices uint8 [k, s]; sums: residues [s]; kept: int8 [s, n] by matrix.
    """

    rows: NDArray[np.int64]
    slices: NDArray[np.uint8]
    sums: NDArray[np.uint64]
    kept: dict[int, torch.Tensor] = field(default_factory=dict)


def follow_rows(
    seed: str,
    uuid: str,
    plan: Plan,
    rows: Sequence[int],
    residency_seed: str,
    needed: AbstractSet[int],
) -> Trail:
    """Compute some rows of every matrix, and keep those of the matrices that are `needed`."""
    n, numbers = plan.n, torch.tensor(list(rows))
    key = sgp1.key_of(seed, uuid, "B/0")
    matrix = torch.cat([sgp1.byte_rows(key, range(row, row + 1), n) for row in rows])
    weights = sgp1.weights(seed, uuid, n)
    places = torch.arange(len(rows))
    slices = np.empty((plan.matrices, len(rows)), np.uint8)
    sums = torch.zeros((len(rows), COLUMNS), dtype=torch.int64)
    kept = {}
    for index in range(plan.matrices):
        if index:
            matrix = sgp1.next_rows(matrix, weights[(index - 1) % len(weights)])
        if index % BATCH == 0:
            count = min(BATCH, plan.matrices - index)
            rights = residency_columns(residency_seed, uuid, n, index, count)
        entries = matrix[places, sgp1.slice_columns(index, numbers, n)]
        slices[index] = entries.numpy().view(np.uint8)
        sums += exact_product(matrix, rights[index % BATCH])
        if index in needed:
            kept[index] = matrix
    return Trail(numbers.numpy(), slices, mersenne.from_digits(sums.numpy()), kept)


def fill_problem(slices: NDArray[np.uint8], digest: bytes, trail: Trail) -> str:
    """What is wrong with slices and the digest of them; empty is nothing."""
    if sgp1.fill_digest(slices.tobytes()) != digest:
        return "the digest of the fill is not that of its slices"
    wrong = (slices[:, trail.rows] != trail.slices).any(axis=1)
    if wrong.any():
        return f"{wrong.sum()} matrices are wrong, from number {wrong.argmax()} on"
    return ""


def residency_problem(sums: NDArray[np.uint64], trail: Trail) -> str:
    """What is wrong with the sums over all matrices; empty is nothing."""
    wrong = sums[trail.rows] != trail.sums
    return f"{wrong.sum()} of {len(wrong)} rows are not there any more" if wrong.any() else ""


def walk_problem(
    traces: NDArray[np.int8],
    steps: Sequence[int],
    digests: Sequence[bytes],
    uuid: str,
    plan: Plan,
    trail: Trail,
) -> str:
    """What is wrong with the opened steps of a walk of digests D_0 to D_T; empty is nothing."""
    for step, trace in zip(steps, traces, strict=True):
        before = digests[step - 1]
        index = sgp1.walk_index(before, step, plan.matrices)
        if sgp1.walk_digest(before, step, index, trace.tobytes()) != digests[step]:
            return f"the digest of step {step} is not that of its trace"
        expected = trace_of(trail.kept[index], walk_columns(before, uuid, plan.n))
        if (trace[trail.rows] != expected).any():
            return f"step {step} did not read matrix {index}"
    return ""


def matrices_of(steps: Sequence[int], digests: Sequence[bytes], plan: Plan) -> set[int]:
    """The matrices that steps of a walk take."""
    return {sgp1.walk_index(digests[step - 1], step, plan.matrices) for step in steps}
