"""The matrices of "sgp1": what a device fills its memory with (chutes §6.6).

Everything is an integer and every product exact, so all devices give the same bytes. B_0 and
W_0..W_3 come from a seed and a device's uuid, B_i is made of B_{i-1} @ W. Rows of B depend on no
other rows. A walk takes one matrix after the other, each drawn by the digest of the step before.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from windrow.kernels.exact_matmul import exact_product
from windrow.kernels.philox import BLOCK_BYTES, Key, philox_bytes_on

WEIGHTS: Final = 4
PANEL: Final = 2048
"""Rows of a product at once: its int32 workspace is small beside the matrices."""

CPU: Final = torch.device("cpu")


def key_of(seed: str, uuid: str, label: str) -> Key:
    """Key of a generator. seed: hex; uuid: of the device, as the asker names it."""
    digest = hashlib.sha256(f"sgp1|{seed}|{uuid}|{label}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def byte_rows(key: Key, rows: range, columns: int, device: torch.device = CPU) -> Tensor:
    """Consecutive rows of a matrix of bytes, int8 [len(rows), columns]; 16 divides columns."""
    across = columns // BLOCK_BYTES
    flat = philox_bytes_on(key, rows.start * across, len(rows) * across, device)
    return flat.reshape(len(rows), columns)


def byte_matrix(key: Key, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
    """A matrix of bytes, int8 [rows, columns]."""
    if device.type == "cpu":
        return byte_rows(key, range(rows), columns)
    matrix = torch.empty((rows, columns), dtype=torch.int8, device=device)
    for panel in _panels(rows):
        matrix[panel.start : panel.stop] = byte_rows(key, panel, columns, device)
    return matrix


def nibble_matrix(key: Key, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
    """A matrix of -8 to 7, int8 [rows, columns]."""
    return byte_matrix(key, rows, columns, device).bitwise_and_(15).sub_(8)


def weights(seed: str, uuid: str, n: int, device: torch.device = CPU) -> list[Tensor]:
    """W_0..W_3, nibbles [n, n]. On a GPU they lie by columns, as its products take them best."""
    matrices = (nibble_matrix(key_of(seed, uuid, f"W/{w}"), n, n, device) for w in range(WEIGHTS))
    if device.type == "cpu":
        return list(matrices)
    return [matrix.t().contiguous().t() for matrix in matrices]


def next_rows(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows of B_i from the same rows of B_{i-1}, int8 [R, n]."""
    made = torch.empty_like(rows)
    for panel in _panels(len(rows)):
        product = exact_product(rows[panel.start : panel.stop], weight)
        made[panel.start : panel.stop] = product.bitwise_xor_(product >> 8).to(torch.int8)
    return made


def slice_columns(index: int, rows: Tensor, n: int) -> Tensor:
    """The column whose entry of each row goes into slice `index`, int64 like rows."""
    return (7 * rows + 13 * index) % n


def slice_of(matrix: Tensor, index: int) -> bytes:
    """One byte of each row of B_index."""
    rows = torch.arange(len(matrix), device=matrix.device)
    return _bytes(matrix[rows, slice_columns(index, rows, matrix.shape[1])])


def fill_digest(slices: bytes) -> bytes:
    """D_0: stands for all slices, in order."""
    return hashlib.sha256(b"sgp1-fill" + slices).digest()


def walk_index(digest: bytes, step: int, count: int) -> int:
    """Which of `count` matrices step t takes, out of the digest of t - 1."""
    drawn = hashlib.sha256(digest + step.to_bytes(4, "little")).digest()
    return int.from_bytes(drawn[:8], "little") % count


def walk_digest(digest: bytes, step: int, index: int, trace: bytes) -> bytes:
    """D_t. trace: what the step made of its matrix."""
    place = step.to_bytes(4, "little") + index.to_bytes(4, "little")
    return hashlib.sha256(digest + place + trace).digest()


def _panels(rows: int) -> Iterator[range]:
    for start in range(0, rows, PANEL):
        yield range(start, min(start + PANEL, rows))


def _bytes(values: Tensor) -> bytes:
    return values.cpu().numpy().tobytes()
