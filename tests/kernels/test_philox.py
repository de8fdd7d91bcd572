"""Philox: published answers, and the same bytes however they are made."""

import numpy as np
import pytest
import torch

from windrow.kernels import philox
from windrow.kernels.philox import philox_bytes, philox_bytes_on, philox_words

KEY = (0xA4093822, 0x299F31D0)


def reference(key: philox.Key, number: int) -> list[int]:
    """The rounds as the paper writes them, in plain integers."""
    state, low = [number & philox._LOW, number >> 32, 0, 0], philox._LOW
    for step in range(10):
        k0, k1 = ((word + step * weyl) & low for word, weyl in zip(key, philox._WEYL, strict=True))
        p, q = state[0] * 0xD2511F53, state[2] * 0xCD9E8D57
        state = [(q >> 32) ^ state[1] ^ k0, q & low, (p >> 32) ^ state[3] ^ k1, p & low]
    return state


def test_known_answer_of_the_authors() -> None:
    known = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox_words((0, 0), 0, 1)[0].tolist() == known


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1, 2**32, 2**40 + 7])
def test_blocks_are_those_of_the_paper(number: int) -> None:
    assert philox_words(KEY, number, 2).tolist() == [
        reference(KEY, number),
        reference(KEY, number + 1),
    ]


def test_any_stretch_is_made_without_the_rest() -> None:
    whole = philox_bytes(KEY, 0, 40_000)
    assert np.array_equal(philox_bytes(KEY, 16_380, 20), whole[16_380 * 16 : 16_400 * 16])


@pytest.mark.parametrize("first", [0, 2**32 - 3])
def test_torch_makes_the_same_bytes(first: int) -> None:
    made = philox._by_torch(KEY, first, 1000, torch.device("cpu"))
    assert np.array_equal(made.numpy(), philox_bytes(KEY, first, 1000))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="not tested on a GPU: no CUDA device")
def test_cuda_makes_the_same_bytes() -> None:
    made = philox_bytes_on(KEY, 2**32 - 3, 100_000, torch.device("cuda")).cpu().numpy()
    assert np.array_equal(made, philox_bytes(KEY, 2**32 - 3, 100_000))
