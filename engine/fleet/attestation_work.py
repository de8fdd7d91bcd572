"""The work of one device in an attestation: fill its memory, walk over it, open what is asked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windrow.engine.fleet.attestation_plan import COLUMNS, Plan
from windrow.kernels import mersenne, sgp1
from windrow.kernels.exact_matmul import exact_product
from windrow.kernels.philox import BLOCK_BYTES, philox_bytes, philox_bytes_on

BATCH = 64
"""Matrices whose columns of randomness are made at once: a GPU starts few large kernels faster."""

Arrays = dict[str, NDArray[Any]]


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
        """Fill and walk. Arrays: slices uint8 [k, n], and walk uint8 [T + 1, 32] of D_0 to D_T."""
        start = time.perf_counter()
        slices = self._fill()
        filled = time.perf_counter()
        self.digests = [sgp1.fill_digest(b"".join(slices))]
        for step in range(1, self.plan.steps + 1):
            index, trace = self._step(step, self.digests[-1])
            self.digests.append(sgp1.walk_digest(self.digests[-1], step, index, trace.tobytes()))
        self.fill_seconds, self.walk_seconds = filled - start, time.perf_counter() - filled
        return {"slices": _table(slices), "walk": _table(self.digests)}

    def open(self, steps: Sequence[int], seed: str) -> Arrays:
        """Arrays: sums uint64 [n] modulo p, which take every matrix at once (`residency_columns`),
        and traces int8 [q, n, 8] of steps of the walk."""
        sums = torch.zeros((self.plan.n, COLUMNS), dtype=torch.int64, device=self.device)
        for start in range(0, len(self.matrices), BATCH):
            batch = self.matrices[start : start + BATCH]
            rights = residency_columns(seed, self.uuid, self.plan.n, start, len(batch), self.device)
            for matrix, right in zip(batch, rights, strict=True):
                sums += exact_product(matrix, right)
        traces = [self._step(step, self.digests[step - 1])[1] for step in steps]
        return {"sums": mersenne.from_digits(sums.cpu().numpy()), "traces": np.stack(traces)}

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

    def _step(self, step: int, digest: bytes) -> tuple[int, NDArray[np.int8]]:
        index = sgp1.walk_index(digest, step, len(self.matrices))
        right = walk_columns(digest, self.uuid, self.plan.n).to(self.device)
        return index, trace_of(self.matrices[index], right)


def trace_of(rows: Tensor, right: Tensor) -> NDArray[np.int8]:
    """What a step makes of rows of its matrix: the low bytes of B @ R, int8 [rows, 8]."""
    return exact_product(rows, right).to(torch.int8).cpu().numpy()


def walk_columns(digest: bytes, uuid: str, n: int) -> Tensor:
    """R of the step after a digest, bytes [n, 8]: nobody knows it before the step before."""
    key = sgp1.key_of(digest.hex(), uuid, "walk")
    return torch.from_numpy(philox_bytes(key, 0, n * COLUMNS // BLOCK_BYTES)).reshape(n, COLUMNS)


def residency_columns(
    seed: str, uuid: str, n: int, first: int, count: int, device: torch.device = sgp1.CPU
) -> Tensor:
    """R_first to R_{first + count - 1}, bytes [count, n, 8]: sums are of B_i @ R_i over all i."""
    blocks = n * COLUMNS // BLOCK_BYTES
    key = sgp1.key_of(seed, uuid, "residency")
    flat = philox_bytes_on(key, first * blocks, count * blocks, device)
    return flat.reshape(count, n, COLUMNS)


def _table(rows: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
