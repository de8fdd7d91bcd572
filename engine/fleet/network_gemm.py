"""The matrix product in compute-subnet's own format, made as its script makes it (§7.2, §7.5).

What a node would print and hand over when the network tests it, so that an operator can see the
verdict before. It proves little (§13): `engine.fleet.gemm_proof` is what Windrow believes.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windrow.kernels.row_tree import row_hashes, row_proof, tree_levels
from windrow.networks.compute_subnet.gpu_proof import OpenedRow, miner_matrix


@dataclass(frozen=True)
class GpuProduct:
    """One GPU's product float32 [n, n] of two seeds, with the levels of its hash tree."""

    gpu: int
    seed_a: int
    seed_b: int
    product: NDArray[np.float32]
    levels: Sequence[Sequence[bytes]]

    def opened(self, cell: tuple[int, int]) -> OpenedRow:
        """The row of a challenged cell and its proof."""
        row = cell[0]
        return OpenedRow(
            self.seed_a,
            self.seed_b,
            cell,
            self.levels[-1][0],
            self.product[row],
            row_proof(self.levels, row),
        )


def compute(n: int, seeds: Sequence[tuple[int, int, int]]) -> tuple[str, list[GpuProduct]]:
    """What mode `compute` prints, and the products. seeds: GPU, seed A, seed B of each."""
    products, timings = [], []
    for gpu, seed_a, seed_b in seeds:
        began = time.perf_counter()
        left, right = miner_matrix(seed_a, n), miner_matrix(seed_b, n)
        made = time.perf_counter()
        product = left @ right
        multiplied = time.perf_counter()
        levels = tree_levels(row_hashes(product))
        hashed = time.perf_counter()
        products.append(GpuProduct(gpu, seed_a, seed_b, product, levels))
        timing = {
            "generation_time": made - began,
            "n": n,
            "multiplication_time": multiplied - made,
            "transfer_back_time": 0.0,
            "merkle_tree_time": hashed - multiplied,
        }
        timings.append([gpu, timing])
    roots = [[product.gpu, product.levels[-1][0].hex()] for product in products]
    return f"Root hashes: {json.dumps(roots)}\nTimings: {json.dumps(timings)}\n", products
