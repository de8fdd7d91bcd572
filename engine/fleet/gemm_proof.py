"""The matrix product a GPU is asked for: as compute-subnet does it, and in a way that shows work.

The network's matrices hold one number a diagonal, so their product needs no GPU (compute-subnet
§13.1), one cell of it is opened, and the node chooses the size. Here every cell is drawn from the
whole seed, the size is the asker's, rows are opened that the asker draws after the root is
committed, and each is held against the product by a random projection (Freivalds): of a product in
which a share f of the rows is wrong, s opened rows let (1-f)^s pass, and a wrong row that is
opened passes with 1/(2^61-1).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.fleet.frames import BadFrame, from_json, pack, to_json, unpack
from windrow.engine.fleet.tasks import BadRequest
from windrow.kernels.exact_matmul import exact_product
from windrow.kernels.mersenne import dot, reduce_words
from windrow.kernels.philox import philox_bytes, philox_bytes_on
from windrow.kernels.row_tree import proves_row, row_hashes, row_proof, tree_levels

SIZES: Final = range(64, 16385, 64)
MAX_GPUS: Final = 16
MAX_ROWS: Final = 64
WRONG_SHARE: Final = 0.5
"""Share of wrong rows the error probability is stated for; fewer are fewer than half the work."""


class BadProof(WindrowError):
    """An answer that is no proof of the product asked for."""


@dataclass(frozen=True)
class Product:
    """What is asked: matrices [n, n] of every GPU, from a seed bound to the session and the GPU."""

    session: str
    n: int
    gpus: tuple[int, ...]

    def key(self, gpu: int, matrix: str) -> tuple[int, int]:
        """Key of the generator that fills a matrix."""
        text = f"windrow-gemm|{self.session}|{gpu}|{matrix}".encode()
        digest = hashlib.sha256(text).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")

    @property
    def operations(self) -> float:
        """Multiplications and additions of all GPUs."""
        return 2.0 * self.n**3 * len(self.gpus)


@dataclass(frozen=True)
class Committed:
    """Root of each GPU's product, 32 bytes, by GPU."""

    roots: dict[int, bytes]
    backend: str


def commit_request(asked: Product) -> bytes:
    """First request: compute, and commit to the rows."""
    return to_json({"session": asked.session, "n": asked.n, "gpus": list(asked.gpus)})


def open_request(asked: Product, rows: Sequence[int]) -> bytes:
    """Second request: the rows of every GPU's product, drawn after the roots came."""
    fields = {"session": asked.session, "n": asked.n, "gpus": list(asked.gpus)}
    return to_json(fields | {"rows": list(rows)})


def answer_commit(request: bytes) -> bytes:
    """Roots of the products, on the node. Raises BadRequest, NoExactProduct."""
    asked, _ = _asked(request)
    roots = {
        str(gpu): tree_levels(row_hashes(_product(asked, gpu)))[-1][0].hex() for gpu in asked.gpus
    }
    return to_json({"roots": roots, "backend": str(_device(asked.gpus[0]).type)})


def answer_open(request: bytes) -> bytes:
    """The opened rows and their proofs, on the node."""
    asked, rows = _asked(request)
    if not rows:
        raise BadRequest("no rows to open")
    opened, proofs = [], []
    for gpu in asked.gpus:
        product = _product(asked, gpu)
        levels = tree_levels(row_hashes(product))
        opened.append(product[rows])
        proofs.append([b"".join(row_proof(levels, row)) for row in rows])
    width = 32 * (asked.n - 1).bit_length()
    siblings = np.frombuffer(b"".join(b"".join(p) for p in proofs), np.uint8)
    return pack(
        {"session": asked.session},
        {
            "rows": np.stack(opened).astype(np.int32),
            "proofs": siblings.reshape(len(asked.gpus), len(rows), width),
        },
    )


def committed(asked: Product, data: bytes) -> Committed:
    """The roots of a first answer. Raises BadProof."""
    try:
        fields = from_json(data, max_bytes=1 << 16)
        roots = {int(gpu): bytes.fromhex(root) for gpu, root in fields["roots"].items()}
        backend = str(fields["backend"])[:32]
    except (BadFrame, KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadProof(f"the roots cannot be read: {error}") from error
    if set(roots) != set(asked.gpus) or any(len(root) != 32 for root in roots.values()):
        raise BadProof(f"{len(roots)} roots of the {len(asked.gpus)} GPUs asked for")
    return Committed(roots, backend)


def verify(
    asked: Product,
    roots: Committed,
    rows: Sequence[int],
    data: bytes,
    words: NDArray[np.uint64],
) -> dict[int, str]:
    """What is wrong with each GPU's opened rows, by GPU; empty text where nothing is.

    words: uint64 [n] of secure randomness, drawn after the answer came. Raises BadProof.
    """
    g, s = len(asked.gpus), len(rows)
    width = 32 * (asked.n - 1).bit_length()
    try:
        _, arrays = unpack(
            data,
            max_bytes=g * s * (4 * asked.n + width) + (1 << 16),
            expected={"rows": ("i4", (g, s, asked.n)), "proofs": ("u1", (g, s, width))},
        )
    except BadFrame as error:
        raise BadProof(str(error)) from error
    opened, proofs = arrays["rows"], arrays["proofs"]
    if opened.shape != (g, s, asked.n) or proofs.shape != (g, s, width):
        raise BadProof("rows or proofs are missing")
    projection = reduce_words(words)
    return {
        gpu: _problem(asked, gpu, roots.roots[gpu], rows, opened[index], proofs[index], projection)
        for index, gpu in enumerate(asked.gpus)
    }


def error_probability(rows: int) -> float:
    """Largest chance that a product with half its rows wrong passes so many opened rows."""
    return (1 - WRONG_SHARE) ** rows + rows / (2**61 - 1)


def _problem(
    asked: Product,
    gpu: int,
    root: bytes,
    rows: Sequence[int],
    opened: NDArray[np.int32],
    proofs: NDArray[np.uint8],
    projection: NDArray[np.uint64],
) -> str:
    for index, row in enumerate(rows):
        siblings = [proofs[index, at : at + 32].tobytes() for at in range(0, proofs.shape[1], 32)]
        leaf = row_hashes(opened[index : index + 1])[0]
        if not proves_row(leaf, row, siblings, root, leaves=asked.n):
            return f"row {row} is not the one that was committed"
    if np.abs(opened.astype(np.int64)).max(initial=0) > asked.n * 1024:
        return "a number is larger than any product's"
    right = dot(_nibbles(asked, gpu), projection)
    left = torch.from_numpy(
        np.stack([_row_of_bytes(asked, gpu, row) for row in rows]).astype(np.int32)
    )
    expected = dot(left, right)
    claimed = dot(torch.from_numpy(opened), projection)
    wrong = np.flatnonzero(expected != claimed)
    return f"row {rows[wrong[0]]} is not the product's" if wrong.size else ""


def _product(asked: Product, gpu: int) -> NDArray[np.int32]:
    """The product int32 [n, n], on the GPU's device."""
    device = _device(gpu)
    n = asked.n
    left = philox_bytes_on(asked.key(gpu, "A"), 0, n * n // 16, device).view(n, n)
    right = _to_nibbles(philox_bytes_on(asked.key(gpu, "B"), 0, n * n // 16, device).view(n, n))
    return exact_product(left, right).cpu().numpy()


def _nibbles(asked: Product, gpu: int) -> torch.Tensor:
    n = asked.n
    made = torch.from_numpy(philox_bytes(asked.key(gpu, "B"), 0, n * n // 16)).view(n, n)
    return _to_nibbles(made)


def _to_nibbles(matrix: torch.Tensor) -> torch.Tensor:
    return (matrix & 15) - 8


def _row_of_bytes(asked: Product, gpu: int, row: int) -> NDArray[np.int8]:
    return philox_bytes(asked.key(gpu, "A"), row * asked.n // 16, asked.n // 16)


def _device(gpu: int) -> torch.device:
    if torch.cuda.is_available():
        if gpu >= torch.cuda.device_count():
            raise BadRequest(f"there is no GPU {gpu}; this node has {torch.cuda.device_count()}")
        return torch.device("cuda", gpu)
    if gpu:
        raise BadRequest(f"there is no GPU {gpu}; this node has none, and works as GPU 0")
    return torch.device("cpu")


def _asked(request: bytes) -> tuple[Product, list[int]]:
    try:
        fields: dict[str, Any] = from_json(request, max_bytes=1 << 16)
    except BadFrame as error:
        raise BadRequest(f"no matrix product: {error}") from error
    session, n, gpus = fields.get("session"), fields.get("n"), fields.get("gpus")
    rows = fields.get("rows", [])
    if (
        not isinstance(session, str)
        or len(session) != 64
        or type(n) is not int
        or n not in SIZES
        or not _indices(gpus, MAX_GPUS, MAX_GPUS)
        or not gpus
        or not _indices(rows, MAX_ROWS, n)
    ):
        raise BadRequest(
            f"a matrix product needs a session of 64 digits, n of {SIZES.start} to "
            f"{SIZES.stop - 1} in steps of {SIZES.step}, GPUs, and at most {MAX_ROWS} rows below n"
        )
    return Product(session, n, tuple(gpus)), rows


def _indices(values: object, most: int, below: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= most
        and len(set(map(repr, values))) == len(values)
        and all(type(value) is int and 0 <= value < below for value in values)
    )
