"""The quick look at commitment texts never takes a text for canonical that is none."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.networks.grail.commitment_texts import (
    canonical_rows,
    entry_counts,
    surely_canonical,
)

PIECES = ['{"sketch": ', "}, ", "[", "]", "}", "{", ", ", '"', "0", "7", "12", "2147482586", " "]


def text_of(sketches: list[int]) -> str:
    return json.dumps([{"sketch": sketch} for sketch in sketches])


def are_canonical(texts: list[str]) -> bool:
    return all(canonical_rows(pa.array(texts, pa.string())).to_pylist())


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**15 - 1), min_size=1, max_size=9), max_size=4))
def test_what_an_honest_writer_makes_is_canonical(rows: list[list[int]]) -> None:
    assert surely_canonical(pa.array([text_of(row) for row in rows], pa.string()))


@settings(deadline=None, max_examples=400)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), max_size=3))
def test_no_heap_of_pieces_is_taken_for_more_than_it_is(bodies: list[str]) -> None:
    texts = ['[{"sketch": ' + body + "}]" for body in bodies]
    if surely_canonical(pa.array(texts, pa.string())):
        assert are_canonical(texts)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_change_of_any_byte_is_seen(row: int) -> None:
    rng = np.random.default_rng(row)
    texts = [text_of([0, 2147482586, 5]), text_of([17]), text_of([3, 40, 0])]
    for position in range(len(texts[row])):
        for new in {*'{}[]",: s0159-+.e\0', chr(rng.integers(128)), "\u0665"}:
            changed = texts[row][:position] + new + texts[row][position + 1 :]
            altered = [*texts[:row], changed, *texts[row + 1 :]]
            # Every integer is short, so here the quick look has to be right in both directions.
            assert surely_canonical(pa.array(altered)) == (
                are_canonical(altered) and "-" not in changed
            )


@pytest.mark.parametrize("before", range(9))
def test_an_integer_that_may_not_fit_is_not_taken_at_any_place(before: int) -> None:
    for digits in range(19, 40):
        sketches = [10 ** (before or 1), int("7" * digits), 1]
        assert not surely_canonical(pa.array([text_of(sketches)]))
    assert surely_canonical(pa.array([text_of([10 ** (before or 1), int("7" * 15), 1])]))


@pytest.mark.parametrize("texts", [[None], ["[]"], [""], ["[{"], ['[{"sketch": }]'], ["}]"]])
def test_rows_without_a_sketch_are_not_taken(texts: list[str | None]) -> None:
    assert not surely_canonical(pa.array([*texts, text_of([1])], pa.string()))


def test_texts_of_a_slice_are_looked_at_alone() -> None:
    texts = pa.array(["x", text_of([1, 2]), text_of([3]), None])
    assert surely_canonical(texts.slice(1, 2))
    assert surely_canonical(texts.slice(1, 0))
    assert not surely_canonical(texts)


def test_entries_are_counted() -> None:
    texts = pa.array([text_of([1, 2, 3]), "[]", None, text_of([9])])
    assert entry_counts(texts).to_pylist() == [3, 0, None, 1]
