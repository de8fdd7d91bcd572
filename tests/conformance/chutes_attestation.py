"""Chutes: the open GPU proof proposed for it, with tiny matrices."""

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from windrow.kernels import mersenne, philox, sgp1
from windrow.kernels.exact_matmul import exact_product
from windrow.networks.chutes import open_proof

from .framework import Case, VectorFile, handles

Row = dict[str, Any]


@handles("chutes/open_gpu_proof.json")
def open_gpu_proof(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    yield Case("philox", partial(check_philox, data["philox_check"]))
    for index, case in enumerate(data["cases"]):
        for check in (check_keys, check_fill, check_walk, check_freivalds):
            yield Case(f"{check.__name__.removeprefix('check_')}-{index}", partial(check, case))


def check_philox(case: Row) -> None:
    words = philox.philox_words(tuple(case["key"]), case["counter"], 1)[0]
    assert [f"{word:08x}" for word in words] == case["words_hex"]


def key(case: Row, label: str) -> philox.Key:
    return sgp1.key_of(case["seed_hex"], case["gpu_uuid"], label)


def fill(case: Row) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    n = case["n"]
    weights = sgp1.weights(case["seed_hex"], case["gpu_uuid"], n)
    matrices = [sgp1.byte_matrix(key(case, "B/0"), n, n)]
    for index in range(1, case["k"]):
        matrices.append(sgp1.next_rows(matrices[-1], weights[(index - 1) % len(weights)]))
    return matrices, weights


def slices(matrices: list[torch.Tensor]) -> list[bytes]:
    return [sgp1.slice_of(matrix, index) for index, matrix in enumerate(matrices)]


def check_keys(case: Row) -> None:
    for label, expected in case["keys"].items():
        assert list(key(case, label)) == expected, label


def check_fill(case: Row) -> None:
    matrices, weights = fill(case)
    assert matrices[0][0, :16].tolist() == case["B0_row0_first16"]
    assert weights[0][0, :16].tolist() == case["W0_row0_first16"]
    product = exact_product(matrices[0], weights[0])
    assert product[0, :4].tolist() == case["C1_row0_first4"]
    assert matrices[1][0, :16].tolist() == case["B1_row0_first16"]
    assert matrices[-1][-1, :16].tolist() == case["B_last_row_last_first16"]
    made = slices(matrices)
    assert [hashlib.sha256(one).hexdigest() for one in made] == case["slice_sha256"]
    assert sgp1.fill_digest(b"".join(made)).hex() == case["fill_digest"]


def check_walk(case: Row) -> None:
    matrices, _ = fill(case)
    digest = sgp1.fill_digest(b"".join(slices(matrices)))
    first = sgp1.nibble_matrix(key(case, "X"), case["m"], case["n"])
    steps = list(open_proof.walk(first, matrices, digest, case["T"]))
    assert [
        {"t": t, "index": step.index, "digest": step.digest.hex()}
        for t, step in enumerate(steps, start=1)
    ] == case["walk"]
    last = steps[-1].state.numpy().tobytes()
    assert hashlib.sha256(last).hexdigest() == case["final_x_sha256"]


def check_freivalds(case: Row) -> None:
    expected = case["freivalds"]
    before, after = map(
        int, re.fullmatch(r"B(\d+) x W\d+ -> C(\d+)", expected["transition"]).groups()
    )
    assert after == before + 1
    assert int(expected["prime"]) == mersenne.PRIME
    matrices, weights = fill(case)
    weight, row = weights[before % len(weights)], expected["row"]
    rho = open_proof.freivalds_vector(key(case, "R/0"), case["n"])
    assert [str(value) for value in rho[:4]] == expected["rho_first4"]
    line = matrices[before][row : row + 1]
    product = exact_product(line, weight)
    assert mersenne.dot(product, rho)[0] == int(expected["c_row_dot_rho"])
    image = mersenne.dot(weight, rho)
    assert mersenne.dot(line, image)[0] == int(expected["b_row_dot_W_rho"])
