"""Exact products: every way gives the integers that Python gives, also modulo 2^61 - 1."""

import numpy as np
import pytest
import torch

from windrow.kernels import exact_matmul, mersenne, sgp1
from windrow.kernels.exact_matmul import NoExactProduct, exact_product, is_exact, way_of

DEVICES = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_the_ways_a_device_has_agree(device: torch.device) -> None:
    ways = [way for way in exact_matmul.WAYS if is_exact(way, device)]
    assert len(ways) >= (3 if device.type == "cpu" else 2)
    assert way_of(device) == ways[0].__name__.removeprefix("_")


def test_a_way_that_errs_is_not_used() -> None:
    def rounding(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left.bfloat16() @ right.bfloat16()).to(torch.int32)

    assert not is_exact(rounding, torch.device("cpu"))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NoExactProduct, match="inner sizes"):
        exact_product(torch.zeros(2, 3, dtype=torch.int8), torch.zeros(2, 3, dtype=torch.int8))


def edge_vector(count: int) -> mersenne.Residues:
    values = sgp1.residues((1, 2), count)
    values[:4] = 0, 1, mersenne.PRIME - 1, 1 << 60
    return values


def test_digits_sum_to_the_vector() -> None:
    vector = edge_vector(100)
    digits = mersenne.digits(vector)
    assert digits.dtype == np.int8
    powers = [256**place for place in range(8)]
    summed = [sum(int(d) * p for d, p in zip(row, powers, strict=True)) for row in digits]
    assert summed == vector.tolist()
    assert mersenne.from_digits(digits).tolist() == vector.tolist()


def test_products_modulo_p_are_those_of_python() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-(2**24), 2**24, (3, 64))
    rows[0] = -(2**24)
    vector = edge_vector(64)
    expected = [
        sum(int(a) * int(b) for a, b in zip(row, vector, strict=True)) % mersenne.PRIME
        for row in rows
    ]
    assert mersenne.dot(torch.from_numpy(rows), vector).tolist() == expected
    small = torch.from_numpy(rng.integers(-128, 128, (64, 64), dtype=np.int8))
    by_digits = exact_product(small, torch.from_numpy(mersenne.digits(vector)))
    assert np.array_equal(mersenne.from_digits(by_digits.numpy()), mersenne.dot(small, vector))


def test_rows_do_not_depend_on_their_neighbours() -> None:
    n = 64
    weight = sgp1.weights("00", "gpu", n)[1]
    matrix = sgp1.byte_matrix(sgp1.key_of("00", "gpu", "B/0"), n, n)
    assert torch.equal(sgp1.next_rows(matrix, weight)[5:7], sgp1.next_rows(matrix[5:7], weight))
    assert torch.equal(sgp1.byte_rows(sgp1.key_of("00", "gpu", "B/0"), range(5, 7), n), matrix[5:7])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_fills_and_walks_to_the_same_bytes() -> None:
    n, cuda = 1024, torch.device("cuda")

    def work(device: torch.device) -> tuple[bytes, bytes]:
        weights = sgp1.weights("00", "gpu", n, device)
        matrix = sgp1.byte_matrix(sgp1.key_of("00", "gpu", "B/0"), n, n, device)
        for weight in weights:
            matrix = sgp1.next_rows(matrix, weight)
        state = sgp1.nibble_matrix(sgp1.key_of("00", "gpu", "X"), 128, n, device)
        state = sgp1.walked(exact_product(state, matrix))
        return matrix.cpu().numpy().tobytes(), sgp1.diagonal_of(state)

    assert work(cuda) == work(sgp1.CPU)
