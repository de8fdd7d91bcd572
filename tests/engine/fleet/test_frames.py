"""Frames: what is packed comes back, and nothing else is taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow.engine.fleet.frames import BadFrame, from_json, pack, to_json, unpack

EXPECTED = {"rows": ("i4", (4, 3)), "times": ("f8", (5,))}


def frame(**changes: np.ndarray) -> bytes:
    arrays = {
        "rows": np.arange(6, dtype=np.int32).reshape(2, 3),
        "times": np.array([0.5, 1.5]),
    }
    return pack({"session": "ä", "n": 3}, arrays | changes)


def test_what_is_packed_comes_back() -> None:
    header, arrays = unpack(frame(), max_bytes=1000, expected=EXPECTED)
    assert header == {"session": "ä", "n": 3}
    assert arrays["rows"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["rows"].dtype == np.int32
    assert arrays["rows"].flags.aligned
    assert arrays["rows"].flags.writeable
    assert arrays["times"].tolist() == [0.5, 1.5]


def test_bytes_do_not_depend_on_how_an_array_lies() -> None:
    rows = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert frame(rows=np.asfortranarray(rows)) == frame(rows=rows.astype(">i4")) == frame()


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": np.zeros((5, 3), np.int32)},
        {"rows": np.zeros((2, 3), np.int64)},
        {"rows": np.zeros(3, np.int32)},
        {"more": np.zeros(1)},
    ],
)
def test_other_arrays_than_expected_are_refused(changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadFrame):
        unpack(frame(**changes), max_bytes=1000, expected=EXPECTED)


def test_objects_are_not_packed() -> None:
    with pytest.raises(BadFrame, match="object"):
        frame(rows=np.array([object()]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data.replace(b"[2,3]", b"[-2,3]"),
        lambda data: data.replace(b"[2,3]", b"[2,true]"),
        lambda data: data.replace(b"[2,3]", b"[4,3]"),
        lambda data: data.replace(b"\n", b" ", 1),
        lambda data: b"[]\n",
        lambda data: b'{"arrays":[],"header":{},"more":1}\n',
        lambda data: b"x" * 2000,
    ],
)
def test_damaged_frames_are_refused(damage: object) -> None:
    with pytest.raises(BadFrame):
        unpack(damage(frame()), max_bytes=1000, expected=EXPECTED)  # type: ignore[operator]


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused_by_name(data: bytes) -> None:
    with pytest.raises(BadFrame):
        unpack(data, max_bytes=1000, expected=EXPECTED)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1,"a":2}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_sound_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadFrame):
        from_json(text)


def test_json_is_canonical_and_bounded() -> None:
    assert to_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()
    assert from_json(b'{"a": 1.5}') == {"a": 1.5}
    with pytest.raises(BadFrame, match="at most 3"):
        from_json(b'{"a":1}', max_bytes=3)
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"a": float("nan")})
