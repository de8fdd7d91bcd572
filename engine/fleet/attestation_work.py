"""The work of one device in an attestation: fill its memory, walk over it, open what is asked."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windrow.engine.fleet.attestation_plan import RESIDENCY_COLUMNS, Plan
from windrow.kernels import mersenne, sgp1
from windrow.kernels.exact_matmul import exact_product
from windrow.kernels.philox import BLOCK_BYTES, philox_bytes_on
from windrow.kernels.row_tree import row_hashes, row_proof, tree_levels

_BATCH = 64
"""Matrices whose residency columns are made at once: a GPU starts few large kernels faster."""

Arrays = dict[str, NDArray[np.generic]]


@dataclass
class DeviceWork:
    """A device's matrices and what it commits to. seed: hex; uuid: as the challenge names it."""

    seed: str
    uuid: str
    plan: Plan
    device: torch.device
    matrices: list[Tensor] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    fill_seconds: float = 0.0
    walk_seconds: float = 0.0

    def run(self) -> Arrays:
        """Fill and walk. Arrays: slices uint8 [k, n], walk uint8 [T + 1, 32] of D_0 to D_T, and
        roots uint8 [segments, 32] over the rows of the state at the end of every segment."""
        start = time.perf_counter()
        slices = self._fill()
        self.digests = [sgp1.fill_digest(b"".join(slices))]
        filled = time.perf_counter()
        roots = self._walk()
        self.fill_seconds, self.walk_seconds = filled - start, time.perf_counter() - filled
        return {
            "slices": _table(slices),
            "walk": _table(self.digests),
            "roots": _table(roots),
        }

    def residency(self, seed: str) -> NDArray[np.int64]:
        """sum_i B_i @ R_i, int64 [n, 8], with bytes R_i that the seed makes: it takes them all."""
        sums = torch.zeros((self.plan.n, RESIDENCY_COLUMNS), dtype=torch.int64, device=self.device)
        for start in range(0, len(self.matrices), _BATCH):
            batch = self.matrices[start : start + _BATCH]
            columns = residency_columns(
                seed, self.uuid, self.plan.n, start, len(batch), self.device
            )
            for matrix, right in zip(batch, columns, strict=True):
                sums += exact_product(matrix, right)
        return sums.cpu().numpy()

    def openings(self, segments: Sequence[int], rows: Sequence[int], seed: str) -> Arrays:
        """Segments of the walk, opened at some rows of its state; q segments of L steps, w rows.

        start int8 [q, w, n], with start_proof and end_proof uint8 [q, w, depth, 32]; diagonals
        int8 [q, L, n]; products int32 [q, L, w, n]; vectors uint64 [q, L, n], B_i @ rho modulo p
        with the rho that `walk_vector` makes of all the others.
        """
        parts = self._replay(sorted({*segments}), list(rows))
        opened = {
            name: np.stack([parts[segment][name] for segment in segments])
            for name in ("start", "start_proof", "end_proof", "diagonals", "products")
        }
        rho = torch.from_numpy(mersenne.digits(walk_vector(seed, self.uuid, self.plan.n, opened)))
        images: dict[int, NDArray[np.uint64]] = {}
        for segment in segments:
            for index in self.steps_of(segment):
                if index not in images:
                    sums = exact_product(self.matrices[index], rho.to(self.device))
                    images[index] = mersenne.from_digits(sums.cpu().numpy())
        vectors = [[images[index] for index in self.steps_of(segment)] for segment in segments]
        return opened | {"vectors": np.array(vectors, np.uint64)}

    def steps_of(self, segment: int) -> list[int]:
        """The matrix that each step of a segment takes."""
        return steps_of(self.digests, segment, self.plan)

    def _fill(self) -> list[bytes]:
        n = self.plan.n
        weights = sgp1.weights(self.seed, self.uuid, n, self.device)
        matrix = sgp1.byte_matrix(sgp1.key_of(self.seed, self.uuid, "B/0"), n, n, self.device)
        self.matrices = [matrix]
        slices = [sgp1.slice_of(matrix, 0)]
        for index in range(1, self.plan.matrices):
            matrix = sgp1.next_rows(matrix, weights[(index - 1) % len(weights)])
            self.matrices.append(matrix)
            slices.append(sgp1.slice_of(matrix, index))
        return slices

    def _walk(self) -> list[bytes]:
        state = self._first_state()
        with ThreadPoolExecutor(1) as hasher:  # hashes while the device goes on
            roots = []
            for step in range(1, self.plan.steps + 1):
                state, diagonal, index, _ = self._step(state, step, self.digests[-1])
                self.digests.append(sgp1.walk_digest(self.digests[-1], step, index, diagonal))
                if step % self.plan.segment == 0:
                    roots.append(hasher.submit(_root, state.cpu()))
            return [root.result() for root in roots]

    def _step(self, state: Tensor, step: int, digest: bytes) -> tuple[Tensor, bytes, int, Tensor]:
        index = sgp1.walk_index(digest, step, len(self.matrices))
        product = exact_product(state, self.matrices[index])
        state = sgp1.walked(product)
        return state, sgp1.diagonal_of(state), index, product

    def _replay(self, segments: list[int], rows: list[int]) -> Mapping[int, Arrays]:
        """Walk again, as far as needed, and note what is asked of each segment."""
        plan, state, parts = self.plan, self._first_state(), {}
        for segment in range(segments[-1] + 1):
            noted = segment in segments
            first, products, diagonals = state, [], []
            for step in range(segment * plan.segment + 1, (segment + 1) * plan.segment + 1):
                state, diagonal, _, product = self._step(state, step, self.digests[step - 1])
                if noted:
                    products.append(product[rows].cpu().numpy())
                    diagonals.append(np.frombuffer(diagonal, np.int8))
            if noted:
                start = first.cpu().numpy()
                parts[segment] = {
                    "start": start[rows],
                    "start_proof": _proofs(start, rows),
                    "end_proof": _proofs(state.cpu().numpy(), rows),
                    "diagonals": np.stack(diagonals),
                    "products": np.stack(products),
                }
        return parts

    def _first_state(self) -> Tensor:
        return first_state(self.seed, self.uuid, self.plan, self.device)


def first_state(seed: str, uuid: str, plan: Plan, device: torch.device = sgp1.CPU) -> Tensor:
    """X_0, int8 [m, n]."""
    return sgp1.nibble_matrix(sgp1.key_of(seed, uuid, "X"), plan.rows, plan.n, device)


def steps_of(digests: Sequence[bytes], segment: int, plan: Plan) -> list[int]:
    """The matrix that each step of a segment takes, by the digests D_0 to D_T."""
    first = segment * plan.segment
    return [
        sgp1.walk_index(digests[step], step + 1, plan.matrices)
        for step in range(first, first + plan.segment)
    ]


def residency_columns(
    seed: str, uuid: str, n: int, first: int, count: int, device: torch.device = sgp1.CPU
) -> Tensor:
    """R_first to R_{first + count - 1}, bytes [count, n, 8]."""
    blocks = n * RESIDENCY_COLUMNS // BLOCK_BYTES
    key = sgp1.key_of(seed, uuid, "residency")
    flat = philox_bytes_on(key, first * blocks, count * blocks, device)
    return flat.reshape(count, n, RESIDENCY_COLUMNS)


def walk_vector(
    seed: str, uuid: str, n: int, opened: Mapping[str, NDArray[np.generic]]
) -> mersenne.Residues:
    """rho [n], out of the asker's seed and of all that is opened: it is fixed before rho is."""
    digest = hashlib.sha256(seed.encode())
    for name in sorted(opened):
        digest.update(np.ascontiguousarray(opened[name]).data)
    return sgp1.residues(sgp1.key_of(digest.hexdigest(), uuid, "R/walk"), n)


def _table(rows: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)


def _root(state: Tensor) -> bytes:
    return tree_levels(row_hashes(state.numpy()))[-1][0]


def _proofs(state: NDArray[np.int8], rows: Sequence[int]) -> NDArray[np.uint8]:
    levels = tree_levels(row_hashes(state))
    return np.stack([_table(row_proof(levels, row)) for row in rows])
