"""Hostile and degenerate inputs of windows, PRF, tokens and seeds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow import WindrowError
from windrow.networks.grail.prf import InvalidChallenge, open_indices, prf, sketch_coefficients
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.tokens import (
    MalformedTokens,
    context_length,
    token_hash,
    tokens_valid,
    vocab_size,
)
from windrow.networks.grail.windows import parse_window, relay_urls, window_start


@given(st.integers(0, 2**40))
def test_a_window_key_reads_back(block: int) -> None:
    start = window_start(block)
    assert parse_window(str(start)) == start
    assert start <= block < start + 30


@pytest.mark.parametrize(
    "key", ["", "x", "31", "030", "+30", "-30", "3_0", " 30", "30\n", "３０", "3e1", "30" * 20]
)
def test_other_keys_are_no_window(key: str) -> None:
    assert parse_window(key) is None


def test_latest_round_is_asked_by_name() -> None:
    assert all(url.endswith("/public/latest") for url in relay_urls())
    assert all(url.endswith("/public/7") for url in relay_urls(7))


@pytest.mark.parametrize("size", [-1, 65537])
def test_prf_bounds_its_output(size: int) -> None:
    with pytest.raises(WindrowError, match="65536"):
        prf(b"x", [], size)


@given(st.text(max_size=80))
def test_any_randomness_text_gives_coefficients_or_a_named_error(text: str) -> None:
    try:
        coefficients = sketch_coefficients(text)
    except WindrowError:
        return
    assert coefficients.dtype == np.int8
    assert np.abs(coefficients.astype(int)).max() <= 127


@given(
    prompt=st.integers(-(2**40), 2**40),
    completion=st.integers(-(2**40), 2**40),
    k=st.integers(-2, 64),
    randomness=st.sampled_from(["", "zz", "ab", "0x" * 3, "00" * 32]),
)
def test_any_range_gives_positions_inside_it_or_a_named_error(
    prompt: int, completion: int, k: int, randomness: str
) -> None:
    try:
        indices = open_indices([1, 2, 3], prompt, completion, randomness, k)
    except WindrowError:
        return
    assert len(indices) == min(k, completion)
    assert indices == sorted(set(indices))
    assert all(prompt <= index < prompt + completion for index in indices)


def test_a_range_past_any_sequence_is_refused_at_once() -> None:
    with pytest.raises(InvalidChallenge):
        open_indices([1], 0, 2**70, "ab")


@given(st.lists(st.integers(-(2**70), 2**70), max_size=40))
def test_token_hash_masks_every_integer(tokens: list[int]) -> None:
    assert token_hash(tokens) == token_hash([token % 2**32 for token in tokens])


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=40))
def test_token_hash_of_an_array_is_that_of_its_list(tokens: list[int]) -> None:
    assert token_hash(np.array(tokens, np.int32)) == token_hash(tokens)


@pytest.mark.parametrize("tokens", [[1.5], ["1"], [None], [[1, 2]], [2**70, 1.5], [float("nan")]])
def test_tokens_that_are_no_integers_are_named(tokens: list[object]) -> None:
    assert not tokens_valid(tokens, None)  # type: ignore[arg-type]
    with pytest.raises(MalformedTokens):
        token_hash(tokens)  # type: ignore[arg-type]


def test_limits_come_from_the_first_name_a_configuration_gives() -> None:
    config = {"n_positions": 7, "max_seq_len": 0, "text_config": {"n_vocab": 11}}
    assert context_length(config) == 7
    assert vocab_size(config) == 11
    assert context_length({"max_position_embeddings": "20"}) == 16384
    assert vocab_size({"text_config": None}) is None


@pytest.mark.parametrize("group", ["x", None, float("inf"), float("nan"), "9" * 5000])
def test_a_group_that_is_no_integer_counts_as_zero(group: float | str | None) -> None:
    assert problem_seed("5F", "0xab", group) == problem_seed("5F", "0xab", 0)


def test_a_lone_surrogate_is_no_crash() -> None:
    assert problem_seed("\ud800", "0xab", 0) != problem_seed("5F", "0xab", 0)
