"""What the trace of an attestation is held against: rows recomputed, and segments of the walk.

Rows of the matrices depend on no other rows, so a few of them, which the node is never told, lead
through the whole chain at a share of s / n of its work. Opened segments of the walk are checked
by Freivalds' method modulo 2^61 - 1: see `check_walk`.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windrow import WindrowError
from windrow.engine.fleet.attestation_plan import RESIDENCY_COLUMNS, Opening, Plan
from windrow.engine.fleet.attestation_work import first_state, residency_columns, walk_vector
from windrow.kernels import mersenne, sgp1
from windrow.kernels.exact_matmul import exact_product
from windrow.kernels.row_tree import proves_row, row_hashes

Arrays = Mapping[str, NDArray[Any]]

_BATCH = 64


class WrongAnswer(WindrowError):
    """An answer is not what an honest node would have sent; the message says where."""


@dataclass(frozen=True)
class ErrorBounds:
    """Largest chance that a device passes without a share `missing` of the work.

    rows: it lacks that share of the rows of any of its matrices. walk: it skipped that share of
    the walk's segments.
    """

    missing: float
    rows: float
    walk: float


def error_bounds(plan: Plan, opening: Opening, uuid: str, rows: int, missing: float) -> ErrorBounds:
    """Bounds for a number of rows recomputed and the segments an opening asks for."""
    segments, opened = opening.samples[uuid]
    equations = len(segments) * len(opened) * plan.segment
    skipped = math.ceil(missing * plan.segments)
    kept = math.comb(plan.segments - skipped, len(segments))
    return ErrorBounds(
        missing,
        rows=(1 - missing) ** rows + 256.0**-RESIDENCY_COLUMNS,
        walk=kept / math.comb(plan.segments, len(segments)) + equations / mersenne.PRIME,
    )


@dataclass
class Trail:
    """What the rows of one device's matrices lead to, in the asker's own computation."""

    rows: NDArray[np.int64]
    slices: NDArray[np.uint8]
    sums: NDArray[np.int64]
    kept: dict[int, torch.Tensor] = field(default_factory=dict)


def follow_rows(
    seed: str,
    uuid: str,
    plan: Plan,
    rows: Sequence[int],
    residency_seed: str,
    needed: AbstractSet[int],
) -> Trail:
    """Compute some rows of every matrix, and keep them of those that are `needed`."""
    n, columns = plan.n, torch.tensor(list(rows))
    key = sgp1.key_of(seed, uuid, "B/0")
    matrix = torch.cat([sgp1.byte_rows(key, range(row, row + 1), n) for row in rows])
    weights = sgp1.weights(seed, uuid, n)
    places = torch.arange(len(rows))
    slices = np.empty((plan.matrices, len(rows)), np.uint8)
    sums = torch.zeros((len(rows), RESIDENCY_COLUMNS), dtype=torch.int64)
    trail = Trail(columns.numpy(), slices, sums.numpy())
    for index in range(plan.matrices):
        if index:
            matrix = sgp1.next_rows(matrix, weights[(index - 1) % len(weights)])
        if index % _BATCH == 0:
            count = min(_BATCH, plan.matrices - index)
            rights = residency_columns(residency_seed, uuid, n, index, count)
        entries = matrix[places, sgp1.slice_columns(index, columns, n)]
        slices[index] = entries.numpy().view(np.uint8)
        sums += exact_product(matrix, rights[index % _BATCH])
        if index in needed:
            trail.kept[index] = matrix
    return trail


def fill_problem(slices: NDArray[np.uint8], digest: bytes, trail: Trail) -> str:
    """What is wrong with slices and the digest of them; empty is nothing."""
    if sgp1.fill_digest(slices.tobytes()) != digest:
        return "the digest of the fill is not that of its slices"
    wrong = (slices[:, trail.rows] != trail.slices).any(axis=1)
    if wrong.any():
        return f"{wrong.sum()} matrices are wrong, from number {wrong.argmax()} on"
    return ""


def check_walk(
    seed: str,
    uuid: str,
    plan: Plan,
    committed: Arrays,
    opened: Arrays,
    opening: Opening,
    trail: Trail,
) -> None:
    """Check opened segments of the walk. Raises WrongAnswer for the first thing wrong.

    Rows of a segment start at a committed state (X_0 is known), every step's product satisfies
    Y @ rho = X @ (B_i @ rho) mod p with rho drawn after Y was fixed, its diagonal is that of the
    digest, and the rows end at the next committed state. B_i @ rho is the node's word, and right
    in the rows that the asker knows.
    """
    segments, rows = opening.samples[uuid]
    digests = [digest.tobytes() for digest in committed["walk"]]
    roots = [root.tobytes() for root in committed["roots"]]
    limit = plan.n * 1024
    if (opened["products"] > limit).any() or (opened["products"] < -limit).any():
        raise WrongAnswer(f"a product of the walk is beyond {limit}")
    others = {name: array for name, array in opened.items() if name != "vectors"}
    rho = walk_vector(opening.seed, uuid, plan.n, others)
    rho_digits = torch.from_numpy(mersenne.digits(rho))
    for place, segment in enumerate(segments):
        state = _first_rows(seed, uuid, plan, opened, place, segment, rows, roots)
        products = torch.from_numpy(opened["products"][place])
        images = mersenne.dot(products, rho)
        for ahead in range(plan.segment):
            step = segment * plan.segment + ahead + 1
            index = sgp1.walk_index(digests[step - 1], step, plan.matrices)
            diagonal = opened["diagonals"][place, ahead]
            if (
                sgp1.walk_digest(digests[step - 1], step, index, diagonal.tobytes())
                != digests[step]
            ):
                raise WrongAnswer(f"the digest of step {step} is not that of its diagonal")
            vector = opened["vectors"][place, ahead]
            known = mersenne.from_digits(exact_product(trail.kept[index], rho_digits).numpy())
            if (vector[trail.rows] != known).any():
                raise WrongAnswer(f"matrix {index} is not what step {step} was multiplied with")
            if (mersenne.dot(state, vector) != images[ahead]).any():
                raise WrongAnswer(f"step {step} did not multiply by matrix {index}")
            state = sgp1.walked(products[ahead])
            for row, values in zip(rows, state.numpy(), strict=True):
                if (values[row :: plan.rows] != diagonal[row :: plan.rows]).any():
                    raise WrongAnswer(f"the diagonal of step {step} is not that of row {row}")
        _check_rows(state, opened["end_proof"][place], rows, roots[segment], plan)


def _first_rows(
    seed: str,
    uuid: str,
    plan: Plan,
    opened: Arrays,
    place: int,
    segment: int,
    rows: Sequence[int],
    roots: Sequence[bytes],
) -> Tensor:
    state = torch.from_numpy(opened["start"][place])
    if segment:
        _check_rows(state, opened["start_proof"][place], rows, roots[segment - 1], plan)
    elif not torch.equal(state, first_state(seed, uuid, plan)[list(rows)]):
        raise WrongAnswer("the walk does not start where it should")
    if ((state < -8) | (state > 7)).any():
        raise WrongAnswer(f"the state before segment {segment} is not of nibbles")
    return state


def _check_rows(
    state: Tensor, proofs: NDArray[np.uint8], rows: Sequence[int], root: bytes, plan: Plan
) -> None:
    for row, leaf, proof in zip(rows, row_hashes(state.numpy()), proofs, strict=True):
        siblings = [sibling.tobytes() for sibling in proof]
        if not proves_row(leaf, row, siblings, root, leaves=plan.rows):
            raise WrongAnswer(f"row {row} of the walk's state is not the one committed to")
