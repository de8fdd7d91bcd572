"""Commitments between int64 lists and JSON text, honest and hostile."""

import hashlib
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.networks.grail.commitments import (
    MAX_JSON_BYTES,
    CommitmentsError,
    check_spaced,
    commitments_hash,
    compact_text,
    decode_sketches,
    encode_compact,
    encode_spaced,
)

LISTS = pa.list_(pa.int64())
INT64 = st.integers(-(2**63), 2**63 - 1)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["sketch", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)


def entries(sketches: list[int]) -> list[dict[str, int]]:
    return [{"sketch": sketch} for sketch in sketches]


def compact_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@settings(deadline=None)
@given(st.lists(st.lists(INT64, max_size=5), max_size=5))
def test_both_texts_are_those_of_json(rows: list[list[int]]) -> None:
    sketches = pa.array(rows, LISTS)
    assert encode_spaced(sketches).to_pylist() == [json.dumps(entries(row)) for row in rows]
    compact = [compact_json(entries(row)) for row in rows]
    assert [text.encode() for text in encode_compact(sketches).to_pylist()] == compact
    digests = [hashlib.sha256(text).digest() for text in compact]
    assert commitments_hash(sketches) == digests
    checked = check_spaced(encode_spaced(sketches))
    assert decode_sketches(checked.texts).to_pylist() == rows
    assert not checked.irregular


@settings(deadline=None)
@given(st.lists(JSON_VALUES | st.lists(INT64, max_size=3).map(entries), max_size=6))
def test_any_json_gives_its_values_or_a_reason(values: list[object]) -> None:
    checked = check_spaced(pa.array([json.dumps(value) for value in values], pa.string()))
    for row, (value, sketches) in enumerate(
        zip(values, decode_sketches(checked.texts).to_pylist(), strict=True)
    ):
        if row in checked.irregular:
            # What the network would hash is kept, whatever the columns make of it.
            assert checked.irregular[row].compact() == compact_json(value)
        else:
            assert value == entries(sketches)
            assert compact_text(checked.texts[row]) == compact_json(value)


def test_rows_of_a_slice_keep_their_own_text() -> None:
    sketches = pa.array([[1, 2], [], [3], [4, 5, 6]], LISTS)
    texts = encode_spaced(sketches)
    assert encode_spaced(sketches.slice(1, 2)).equals(texts.slice(1, 2))
    checked = check_spaced(texts.slice(2)).texts
    assert decode_sketches(checked).to_pylist() == [[3], [4, 5, 6]]
    assert decode_sketches(texts.slice(1, 2)).to_pylist() == [[], [3]]


@pytest.mark.parametrize(
    ("text", "sketches"),
    [
        ('[{"sketch":5},{"sketch": -7}]', [5, -7]),
        ('[ {"sketch": 5} ]\n', [5]),
        ('[{"sketch": -0}]', [0]),
        ('[{"sketch": 1, "sketch": 2}]', [2]),
        ('[{"sketch": -9223372036854775808}]', [-(2**63)]),
        ("[]", []),
    ],
)
def test_other_spellings_of_the_same_value_are_regular(text: str, sketches: list[int]) -> None:
    checked = check_spaced(pa.array([text]))
    assert decode_sketches(checked.texts).to_pylist() == [sketches]
    assert not checked.irregular


@pytest.mark.parametrize(
    ("text", "reason", "is_json"),
    [
        ('[{"sketch": 9223372036854775808}]', "entry 0: sketch does not fit 64 bits", True),
        ('[{"sketch": 1' + "0" * 30 + "}]", "does not fit", True),
        ('[{"sketch": 1}, {"sketch": 1.0}]', "entry 1: sketch is a float", True),
        ('[{"sketch": NaN}]', "float", True),
        ('[{"sketch": true}]', "bool", True),
        ('[{"sketch": "5"}]', "str", True),
        ('[{"sketch": null}]', "NoneType", True),
        ('[{"x": 1}]', "no 'sketch'", True),
        ("[[1]]", "a list instead of an object", True),
        ("null", "instead of a list", True),
        ('{"sketch": 1}', "instead of a list", True),
        ('[{"sketch": 05}]', "not JSON", False),
        ('[{"sketch": 0x1f}]', "not JSON", False),
        ('[{"sketch": +5}]', "not JSON", False),
        ('[{"sketch": 5}, ]', "not JSON", False),
        ('[{"sketch": }]', "not JSON", False),
        ('[{"sketch": 5}, {"sketch": }]', "not JSON", False),
        ('[{"sketch": }, {"sketch": 5}]', "not JSON", False),
        ('[{"sketch": 5 6}]', "not JSON", False),
        ('[{"sketch": 5},\u00a0{"sketch": 6}]', "not JSON", False),
        ('[{"sketch": \u0665}]', "not JSON", False),
        ('[{"sketch": 5e2}]', "float", True),
        ('[{"sketch": ' + "9" * 5000 + "}]", "not JSON", False),
        ("[" * 100_000, "not JSON", False),
        ("", "not JSON", False),
        (" " * (MAX_JSON_BYTES + 1), "are read", False),
        (None, "null", True),
    ],
)
def test_values_the_column_cannot_hold_give_a_reason(
    text: str | None, reason: str, is_json: bool
) -> None:
    checked = check_spaced(pa.array([text, '[{"sketch": 8}]'], pa.string()))
    assert decode_sketches(checked.texts).to_pylist() == [None, [8]]
    assert reason in checked.irregular[0].reason
    assert checked.irregular[0].is_json is is_json


def test_extra_keys_keep_both_the_sketches_and_the_text() -> None:
    text = '[{"sketch": 3}, {"x": [1, "é"], "sketch": 4}]'
    checked = check_spaced(pa.array([text]))
    assert decode_sketches(checked.texts).to_pylist() == [[3, 4]]
    assert "entry 1" in checked.irregular[0].reason
    assert checked.irregular[0].compact() == rb'[{"sketch":3},{"sketch":4,"x":[1,"\u00e9"]}]'


def test_text_that_is_not_utf8_is_irregular() -> None:
    texts = pa.array([b'[{"sketch": 5, "\xed\xa0\x80": 1}]'], pa.binary()).cast(
        pa.string(), safe=False
    )
    assert "not UTF-8" in check_spaced(texts).irregular[0].reason


@pytest.mark.parametrize("row", [None, [1, None]])
def test_a_missing_sketch_is_not_written(row: list[int | None] | None) -> None:
    with pytest.raises(CommitmentsError, match="every token needs one"):
        encode_spaced(pa.array([[1], row], LISTS))


def test_a_row_without_commitments_has_nothing_to_hash() -> None:
    with pytest.raises(CommitmentsError, match="every token needs a sketch"):
        compact_text(check_spaced(pa.array(["[1]"])).texts[0])


def test_a_text_that_is_not_json_has_no_value() -> None:
    with pytest.raises(CommitmentsError, match="not JSON"):
        check_spaced(pa.array(["["])).irregular[0].compact()
