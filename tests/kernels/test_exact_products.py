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


def test_digits_fold_to_what_python_computes() -> None:
    rng = np.random.default_rng(0)
    for bound in (2**31, 2**45):
        sums = rng.integers(-bound, bound, (50, 8))
        sums[0], sums[1], sums[2] = 0, -bound, bound - 1
        expected = [
            sum(int(value) * 256**place for place, value in enumerate(row)) % mersenne.PRIME
            for row in sums
        ]
        assert mersenne.from_digits(sums).tolist() == expected


def test_products_with_digits_are_products_modulo_p() -> None:
    rng = np.random.default_rng(1)
    matrix, digits = (
        torch.from_numpy(rng.integers(-128, 128, size, np.int8)) for size in ((9, 64), (64, 8))
    )
    vector = [sum(d * 256**place for place, d in enumerate(row)) for row in digits.tolist()]
    expected = [
        sum(a * b for a, b in zip(row, vector, strict=True)) % mersenne.PRIME
        for row in matrix.tolist()
    ]
    assert mersenne.from_digits(exact_product(matrix, digits).numpy()).tolist() == expected


def test_dots_are_those_of_python() -> None:
    rng = np.random.default_rng(2)
    rows = rng.integers(-(2**24), 2**24, (3, 64))
    rows[0] = -(2**24)
    vector = mersenne.reduce_words(rng.integers(0, 2**64, 64, np.uint64))
    vector[:3] = 0, mersenne.PRIME - 1, 1
    expected = [
        sum(int(a) * int(b) for a, b in zip(row, vector, strict=True)) % mersenne.PRIME
        for row in rows
    ]
    assert mersenne.dot(torch.from_numpy(rows), vector).tolist() == expected


def test_rows_do_not_depend_on_their_neighbours() -> None:
    n = 64
    weight = sgp1.weights("00", "gpu", n)[1]
    matrix = sgp1.byte_matrix(sgp1.key_of("00", "gpu", "B/0"), n, n)
    assert torch.equal(sgp1.next_rows(matrix, weight)[5:7], sgp1.next_rows(matrix[5:7], weight))
    assert torch.equal(sgp1.byte_rows(sgp1.key_of("00", "gpu", "B/0"), range(5, 7), n), matrix[5:7])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="not tested on a GPU: no CUDA device")
def test_cuda_fills_to_the_same_bytes() -> None:
    n, cuda = 1024, torch.device("cuda")

    def work(device: torch.device) -> bytes:
        matrix = sgp1.byte_matrix(sgp1.key_of("00", "gpu", "B/0"), n, n, device)
        for weight in sgp1.weights("00", "gpu", n, device):
            matrix = sgp1.next_rows(matrix, weight)
        return matrix.cpu().numpy().tobytes()

    assert work(cuda) == work(sgp1.CPU)
