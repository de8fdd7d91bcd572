"""The product in the network's format: its own rule takes it, and the shortcut too."""

import dataclasses

import numpy as np
import pytest

from windrow.engine.fleet.network_gemm import compute
from windrow.networks.compute_subnet.gpu_proof import network_accepts_row, parse_proof

N = 64
SEEDS = [(0, 2**63 + 5, 7), (1, 11, 2**40)]


def test_what_is_printed_is_what_the_network_reads() -> None:
    printed, products = compute(N, SEEDS)
    read = parse_proof(printed)
    assert [gpu for gpu, _ in read.roots] == [0, 1]
    assert [root for _, root in read.roots] == [p.levels[-1][0].hex() for p in products]
    assert all(timing["n"] == N for _, timing in read.timings)


@pytest.mark.parametrize("cell", [(0, 0), (63, 63), (17, 40)])
def test_the_network_takes_every_cell_of_an_honest_product(cell: tuple[int, int]) -> None:
    _, products = compute(N, SEEDS)
    assert all(network_accepts_row(product.opened(cell), N) for product in products)


def test_a_changed_row_is_not_taken() -> None:
    _, (product, _) = compute(N, SEEDS)
    opened = product.opened((5, 6))
    row = opened.row.copy()
    row[6] += np.float32(1)
    assert not network_accepts_row(dataclasses.replace(opened, row=row), N)
    row = opened.row.copy()
    row[7] += np.float32(1)
    assert not network_accepts_row(dataclasses.replace(opened, row=row), N)
