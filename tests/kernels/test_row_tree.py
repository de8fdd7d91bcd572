"""Hash trees over rows: a proof opens its own row and no other."""

import numpy as np
import pytest

from windrow.kernels.row_tree import proves_row, row_hashes, row_proof, tree_levels


@pytest.mark.parametrize("rows", [1, 2, 3, 17, 32])
def test_every_row_can_be_opened_at_its_own_place_alone(rows: int) -> None:
    leaves = row_hashes(np.arange(rows * 3, dtype=np.int32).reshape(rows, 3))
    levels = tree_levels(leaves)
    root = levels[-1][0]
    for index in range(rows):
        proof = row_proof(levels, index)
        opened = [
            other
            for other in range(-1, 2 * rows + 64)
            if proves_row(leaves[index], other, proof, root, leaves=rows)
        ]
        assert opened == [index]


def test_a_proof_of_another_length_opens_nothing() -> None:
    leaves = row_hashes(np.zeros((4, 2), np.float32))
    levels = tree_levels(leaves)
    proof = row_proof(levels, 2)
    root = levels[-1][0]
    assert proves_row(leaves[2], 2, proof, root, leaves=4)
    assert not proves_row(leaves[2], 2, [*proof, bytes(32)], root, leaves=4)
    assert not proves_row(leaves[2], 2, proof[:-1], root, leaves=4)


def test_the_order_of_bytes_in_memory_does_not_matter() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert row_hashes(rows) == row_hashes(rows.astype(">f4"))
    assert row_hashes(rows.T) == row_hashes(rows.T.copy())
