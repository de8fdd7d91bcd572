"""Cheats against compute-subnet's matrix product, each carried out.

The network's verdict is that of its own rule on what the cheat hands in; Windrow's is that of the
product of full entropy (`engine/fleet/gemm_proof.py`) on the same cheat.
"""

import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.soundness.fleet_row import ACCEPTED, REFUSED, Row, outcome
from windrow.engine.fleet import gemm_proof
from windrow.engine.fleet.frames import pack, to_json
from windrow.engine.fleet.gemm_proof import BadProof, Product
from windrow.kernels.exact_matmul import exact_product
from windrow.kernels.philox import philox_bytes
from windrow.kernels.row_tree import row_hashes, row_proof, tree_levels
from windrow.networks.compute_subnet.gpu_proof import (
    OpenedRow,
    gpus_needed,
    miner_matrix,
    network_accepts_row,
    states,
)

N: Final = 128
OPENED: Final = 32
ATTEMPTS: Final = 22
"""How often the network asks again before it notes a failure (§7.1)."""
ASKED: Final = Product("ab" * 32, N, (0,))
Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


def rows() -> list[Row]:
    """Every cheat and its outcomes."""
    return list(_products())


def shortcut(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """A @ B for A[i, j] = a[i + j] and B[j, k] = b[j + k], in O(n^2): a, b of 2n - 1 numbers.

    C[i+1, k+1] = C[i, k] - a[i] b[k] + a[i+n] b[n+k] (compute-subnet §13.1).
    """
    n = (len(a) + 1) // 2
    product = np.empty((n, n))
    product[0] = np.correlate(b, a[:n], "valid")
    product[:, 0] = np.correlate(a, b[:n], "valid")
    for i in range(n - 1):
        product[i + 1, 1:] = product[i, :-1] - a[i] * b[: n - 1] + a[i + n] * b[n:]
    return product


def by_shortcut(seed_a: int, seed_b: int, n: int) -> Floats:
    """The network's product without multiplying matrices."""
    sums = np.arange(2 * n - 1)
    a, b = (states(s, sums).astype(np.float32) / np.float32(2**32 - 1) for s in (seed_a, seed_b))
    return shortcut(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)


def by_work(seed_a: int, seed_b: int, n: int) -> Floats:
    """The network's product as it is meant."""
    return miner_matrix(seed_a, n) @ miner_matrix(seed_b, n)


def network_takes(
    product: Floats, seeds: tuple[int, int], cell: tuple[int, int], n: int = N
) -> bool:
    """Whether the network takes one cell of a committed product."""
    levels = tree_levels(row_hashes(product))
    proof = row_proof(levels, cell[0])
    opened = OpenedRow(*seeds, cell, levels[-1][0], product[cell[0]], proof)
    return network_accepts_row(opened, n)


def cells(count: int, n: int = N, start: int = 0) -> list[tuple[int, int]]:
    drawn = np.random.default_rng(start).integers(0, n, (count, 2))
    return [(int(i), int(j)) for i, j in drawn]


def factors(asked: Product, gpu: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrices of Windrow's own product, int8 [n, n]."""
    blocks = asked.n**2 // 16
    left, right = (
        torch.from_numpy(philox_bytes(asked.key(gpu, name), 0, blocks)).view(asked.n, asked.n)
        for name in "AB"
    )
    return left, (right & 15) - 8


def true_product(asked: Product, gpu: int = 0) -> Integers:
    return exact_product(*factors(asked, gpu)).numpy()


def windrow_problem(asked: Product, products: Sequence[Integers]) -> str:
    """What Windrow finds wrong with committed products, one a GPU; empty where nothing."""
    generator = np.random.default_rng(5)
    n = len(products[0])
    drawn = sorted(generator.choice(min(n, asked.n), OPENED, replace=False).tolist())
    trees = [tree_levels(row_hashes(product)) for product in products]
    proofs = [[b"".join(row_proof(tree, row)) for row in drawn] for tree in trees]
    siblings = np.frombuffer(b"".join(b"".join(one) for one in proofs), np.uint8)
    opened = pack(
        {"session": asked.session},
        {
            "rows": np.stack([product[drawn] for product in products]),
            "proofs": siblings.reshape(len(products), len(drawn), -1),
        },
    )
    roots = {str(gpu): tree[-1][0].hex() for gpu, tree in zip(asked.gpus, trees, strict=True)}
    first = to_json({"roots": roots, "backend": "cuda"})
    return judged(asked, first, drawn, opened)


def judged(asked: Product, first: bytes, drawn: list[int], opened: bytes) -> str:
    words = np.random.default_rng(6).integers(0, 2**63, asked.n, dtype=np.uint64)
    try:
        roots = gemm_proof.committed(asked, first)
        found = gemm_proof.verify(asked, roots, drawn, opened, words)
    except BadProof as error:
        return str(error)
    return "; ".join(f"GPU {gpu}: {problem}" for gpu, problem in found.items() if problem)


def cost(n: int) -> tuple[float, float]:
    """Seconds of the shortcut, and of the product as it is meant, on this machine."""
    began = time.perf_counter()
    by_shortcut(7, 11, n)
    between = time.perf_counter()
    by_work(7, 11, n)
    return between - began, time.perf_counter() - between


def honest() -> Row:
    """Both products done as asked: both are taken, so the catalogue says something."""
    network = all(network_takes(by_work(7, 11, N), (7, 11), cell) for cell in cells(12))
    problem = windrow_problem(ASKED, [true_product(ASKED)])
    return Row("honest", outcome(network), outcome(not problem), problem)


def _products() -> Iterator[Row]:
    yield _row(
        "structured shortcut, O(n^2), no GPU",
        all(network_takes(by_shortcut(7, 11, N), (7, 11), cell) for cell in cells(12)),
        windrow_problem(ASKED, [_as_if_structured(ASKED)]),
    )
    small = [by_work(7, 11, 8)]
    tiny = Product(ASKED.session, 64, (0,))
    yield _row(
        "a size of its own choice: 8 x 8",
        all(network_takes(small[0], (7, 11), cell, n=8) for cell in cells(12, n=8)),
        windrow_problem(ASKED, [true_product(tiny)]),
    )
    yield _half_wrong()
    yield _row(
        "the proof of another seed with the same low 32 bits",
        network_takes(by_work(7, 11, N), (7 + 2**32, 11 + 2**40), (3, 4)),
        windrow_problem(ASKED, [true_product(Product("cd" * 32, N, (0,)))]),
    )
    yield _code_in_the_answer()
    yield _two_of_eight()


def _as_if_structured(asked: Product) -> Integers:
    """The shortcut on matrices that have no structure: their first row and last column stand in."""
    left, right = (matrix.numpy().astype(np.float64) for matrix in factors(asked))
    a, b = (np.concatenate([matrix[0], matrix[1:, -1]]) for matrix in (left, right))
    return shortcut(a, b).astype(np.int32)


def _half_wrong() -> Row:
    half = by_work(7, 11, N)
    half[::2] = 0
    taken = sum(network_takes(half, (7, 11), cell) for cell in cells(ATTEMPTS))
    product = true_product(ASKED)
    product[::2] = 0
    row = _row("half of the rows never computed", taken, windrow_problem(ASKED, [product]))
    network = f"{ACCEPTED}: {taken} of {ATTEMPTS} attempts pass, and one is enough"
    return row._replace(network_outcome=network if taken else REFUSED)


def _two_of_eight() -> Row:
    eight, idle = Product(ASKED.session, N, tuple(range(8))), (2, 5)
    taken = 0
    for gpu in eight.gpus:
        product = by_work(gpu, gpu + 100, N)
        if gpu in idle:
            product = np.zeros_like(product)
        taken += network_takes(product, (gpu, gpu + 100), (5, 6))
    products = [true_product(eight, gpu) for gpu in eight.gpus]
    for gpu in idle:
        products[gpu] = np.zeros_like(products[gpu])
    problem = windrow_problem(eight, products)
    return _row("two GPUs of eight do nothing", taken >= gpus_needed(8), problem)


def _code_in_the_answer() -> Row:
    """The network loads an answer with its objects, and objects bring code that runs."""
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder) / "ran"
        file = io.BytesIO()
        np.save(file, np.array([_Touches(marker)], dtype=object), allow_pickle=True)
        roots = to_json({"roots": {"0": "00" * 32}, "backend": "cuda"})
        problem = judged(ASKED, roots, [0], file.getvalue())
        assert not marker.exists()
        file.seek(0)
        np.load(file, allow_pickle=True)
        network = f"{ACCEPTED}: its code runs at the validator" if marker.exists() else REFUSED
    return _row("code in place of an answer", True, problem)._replace(network_outcome=network)


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _row(name: str, network: object, problem: str) -> Row:
    return Row(name, outcome(network), outcome(not problem), problem)
