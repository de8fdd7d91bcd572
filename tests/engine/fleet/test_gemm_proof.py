"""The matrix product that shows work: honest answers pass, every shortcut is named."""

import json

import numpy as np
import pytest

from windrow.engine.fleet import gemm_proof
from windrow.engine.fleet.frames import pack, unpack
from windrow.engine.fleet.gemm_proof import BadProof, Product
from windrow.engine.fleet.tasks import BadRequest

ASKED = Product("ab" * 32, 128, (0,))
ROWS = [0, 5, 63, 127]
WORDS = np.random.default_rng(3).integers(0, 2**63, 128, dtype=np.uint64)
WIDTH = 32 * 7


@pytest.fixture(scope="module")
def opened() -> bytes:
    return gemm_proof.answer_open(gemm_proof.open_request(ASKED, ROWS))


@pytest.fixture(scope="module")
def roots() -> gemm_proof.Committed:
    return gemm_proof.committed(ASKED, gemm_proof.answer_commit(gemm_proof.commit_request(ASKED)))


def arrays(opened: bytes) -> dict[str, np.ndarray]:
    bounds = {"rows": ("i4", (1, 4, 128)), "proofs": ("u1", (1, 4, WIDTH))}
    return unpack(opened, max_bytes=1 << 20, expected=bounds)[1]


def verified(roots: gemm_proof.Committed, data: bytes, asked: Product = ASKED) -> str:
    return gemm_proof.verify(asked, roots, ROWS, data, WORDS)[0]


def test_an_honest_product_passes(roots: gemm_proof.Committed, opened: bytes) -> None:
    assert verified(roots, opened) == ""
    assert roots.backend == "cpu"


def test_the_product_is_the_product(opened: bytes) -> None:
    product = gemm_proof._product(ASKED, 0)
    left = np.stack([gemm_proof._row_of_bytes(ASKED, 0, row) for row in ROWS]).astype(np.int64)
    right = gemm_proof._nibbles(ASKED, 0).numpy().astype(np.int64)
    assert np.array_equal(left @ right, product[ROWS])
    assert np.array_equal(arrays(opened)["rows"][0], product[ROWS])


def test_a_changed_number_is_not_the_row_that_was_committed(
    roots: gemm_proof.Committed, opened: bytes
) -> None:
    changed = arrays(opened)
    changed["rows"][0, 2, 7] += 1
    assert "row 63 is not the one that was committed" in verified(roots, pack({}, changed))


def test_a_wrong_product_that_was_committed_is_seen(opened: bytes) -> None:
    """As structured matrices, another seed, or rows that were never computed would be."""
    wrong = np.zeros((128, 128), np.int32)
    levels = gemm_proof.tree_levels(gemm_proof.row_hashes(wrong))
    proofs = [b"".join(gemm_proof.row_proof(levels, row)) for row in ROWS]
    data = pack(
        {},
        {
            "rows": wrong[ROWS][None],
            "proofs": np.frombuffer(b"".join(proofs), np.uint8).reshape(1, 4, WIDTH),
        },
    )
    roots = gemm_proof.Committed({0: levels[-1][0]}, "cpu")
    assert verified(roots, data) == "row 0 is not the product's"


def test_an_answer_for_another_session_is_no_answer(
    roots: gemm_proof.Committed, opened: bytes
) -> None:
    other = Product("cd" * 32, 128, (0,))
    assert verified(roots, opened, other) == "row 0 is not the product's"


def test_another_size_is_not_taken(roots: gemm_proof.Committed) -> None:
    small = Product("ab" * 32, 64, (0,))
    data = gemm_proof.answer_open(gemm_proof.open_request(small, [0, 5, 6, 63]))
    with pytest.raises(BadProof):
        verified(roots, data)


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * (1 << 20)])
def test_bytes_that_are_no_proof(roots: gemm_proof.Committed, data: bytes) -> None:
    with pytest.raises(BadProof):
        verified(roots, data)
    with pytest.raises(BadProof):
        gemm_proof.committed(ASKED, data)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 100},
        {"n": 1 << 20},
        {"n": True},
        {"session": "short"},
        {"gpus": []},
        {"gpus": [0, 0]},
        {"gpus": [7]},
        {"rows": [128]},
        {"rows": list(range(65))},
        {"rows": ["0"]},
    ],
)
def test_a_request_beyond_bounds_is_refused(change: dict[str, object]) -> None:
    fields = json.loads(gemm_proof.open_request(ASKED, ROWS)) | change
    with pytest.raises(BadRequest):
        gemm_proof.answer_open(json.dumps(fields).encode())


def test_the_error_probability_is_that_of_half_the_work() -> None:
    assert gemm_proof.error_probability(32) < 3e-10
