import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from windrow.networks.grail.delta import (
    BITS,
    DeltaMismatch,
    FloatTensor,
    MalformedDelta,
    TensorDelta,
    UnencodableDelta,
    ValueType,
    apply_change,
    tensor_delta,
    weights_digest,
)
from windrow.networks.grail.delta_codec import (
    VERSIONS,
    DeltaFormat,
    decode_payload,
    encode_payload,
    payload_limit,
)
from windrow.networks.grail.delta_stream import compress, inflate

FORMATS: list[DeltaFormat] = list(VERSIONS)
V2, V3, V31 = FORMATS


def floats(values: list[float], shape: tuple[int, ...] | None = None) -> FloatTensor:
    array = np.array(values, np.float32)
    return FloatTensor(shape or array.shape, "float32", array.view("<u4"))


def change(shape: tuple[int, ...], positions: list[int], dtype: ValueType = "bfloat16") -> Any:
    values = np.arange(1, len(positions) + 1).astype(BITS[dtype])
    return TensorDelta(shape, dtype, np.array(positions, np.int64), values)


def decoded(payload: bytes, format_: DeltaFormat = V31) -> dict[str, TensorDelta]:
    return dict(decode_payload(payload, format_))


def edited(payload: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The payload with its header changed, the data as it was."""
    end = 4 + int.from_bytes(payload[:4], "little")
    header = json.loads(payload[4:end])
    edit(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "little") + text + payload[end:]


@st.composite
def tensor_changes(draw: st.DrawFn) -> TensorDelta:
    shape = tuple(draw(st.lists(st.integers(1, 400), min_size=1, max_size=3)))
    size = int(np.prod(shape))
    positions = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=40)))
    dtype = draw(st.sampled_from(list(BITS)))
    bits = draw(
        st.lists(
            st.integers(0, 2 ** (8 * BITS[dtype].itemsize) - 1),
            min_size=len(positions),
            max_size=len(positions),
        )
    )
    return TensorDelta(
        shape, dtype, np.array(positions, np.int64), np.array(bits).astype(BITS[dtype])
    )


@given(st.dictionaries(st.text(max_size=8), tensor_changes(), max_size=4))
def test_every_format_gives_back_what_it_was_given(delta: dict[str, TensorDelta]) -> None:
    for format_ in FORMATS:
        found = decoded(encode_payload(delta, format_), format_)
        assert found.keys() == delta.keys()
        for name, each in delta.items():
            assert (found[name].shape, found[name].dtype) == (each.shape, each.dtype)
            assert found[name].positions.tolist() == each.positions.tolist()
            assert found[name].values.tobytes() == each.values.tobytes()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_delta_or_malformed(data: bytes) -> None:
    for read in (
        lambda: b"".join(inflate(io.BytesIO(data), 10_000)),
        lambda: decoded(data),
        lambda: decoded(len(data).to_bytes(4, "little") + data),
    ):
        with contextlib.suppress(MalformedDelta):
            read()


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_altered_byte_gives_a_delta_within_bounds_or_malformed(at: int, byte: int) -> None:
    payload = bytearray(encode_payload({"w": change((9, 300), [0, 7, 299, 300, 2699])}, V31))
    payload[at % len(payload)] = byte
    try:
        for each in decoded(bytes(payload)).values():
            assert 0 <= each.positions[0] <= each.positions[-1] < np.prod(each.shape)
    except MalformedDelta:
        pass


def test_sign_of_zero_is_a_change_and_unchanged_nan_is_none() -> None:
    base, current = floats([0.0, np.nan, 1.0]), floats([-0.0, np.nan, 1.0])
    assert tensor_delta(base, current).positions.tolist() == [0]
    assert tensor_delta(base, current, signed_zeros=False).positions.tolist() == [1]


def test_changed_shape_or_type_is_no_delta() -> None:
    with pytest.raises(UnencodableDelta, match="publish a FULL checkpoint"):
        tensor_delta(floats([1.0, 2.0]), floats([1.0, 2.0], (2, 1)))


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        (change((2, 3), [1], "float32"), "as float32"),
        (change((6,), [1]), r"\[6\]"),
        (change((2, 3), [1, 1]), "twice"),
    ],
)
def test_delta_of_another_tensor_changes_nothing(delta: TensorDelta, reason: str) -> None:
    target = FloatTensor((2, 3), "bfloat16", np.zeros(6, "<u2"))
    with pytest.raises(DeltaMismatch, match=reason):
        apply_change("w", target, delta)
    assert not target.bits.any()


def test_weights_hash_covers_scalars_and_orders_names_by_code_point() -> None:
    tensors = {"b": b"2", "B": b"1", "scalar": b"3"}
    assert weights_digest(tensors) == weights_digest({"": b"123"})


def test_scalars_and_wide_indices_cannot_be_encoded() -> None:
    scalar = TensorDelta((), "float32", np.zeros(1, np.int64), np.ones(1, "<u4"))
    for format_ in FORMATS:
        with pytest.raises(UnencodableDelta, match="scalar"):
            encode_payload({"w": scalar}, format_)
    wide = change((2**16, 2**16), [2**31])
    with pytest.raises(UnencodableDelta, match="32 bits"):
        encode_payload({"w": wide}, V2)
    assert decoded(encode_payload({"w": wide}, V31))["w"].positions.tolist() == [2**31]


@pytest.mark.parametrize("format_", FORMATS)
def test_other_version_is_refused(format_: DeltaFormat) -> None:
    for other in FORMATS:
        if other != format_:
            with pytest.raises(MalformedDelta, match="version"):
                decoded(encode_payload({"w": change((4,), [1])}, other), format_)


@pytest.mark.parametrize("format_", FORMATS)
def test_payload_cut_anywhere_is_refused(format_: DeltaFormat) -> None:
    payload = encode_payload({"w": change((4,), [1, 3])}, format_)
    for length in range(1, len(payload)):
        with pytest.raises(MalformedDelta):
            decoded(payload[:length], format_)
    with pytest.raises(MalformedDelta, match="bytes of data"):
        decoded(payload + b"\0", format_)


@pytest.mark.parametrize(
    ("format_", "indices"),
    [(V2, [-1]), (V2, [3, -1]), (V3, [-1, 0]), (V3, [0, -1]), (V3, [0, 1, 2, -1])],
)
def test_negative_indices_are_refused(format_: DeltaFormat, indices: list[int]) -> None:
    count = len(indices) if format_ == V2 else len(indices) // 2
    payload = encode_payload({"w": change((4, 4), list(range(count)))}, format_)
    data = len(payload) - 4 * len(indices) - 2 * count
    raw = np.array(indices, "<i4").tobytes()
    hostile = payload[:data] + raw + payload[data + len(raw) :]
    with pytest.raises(MalformedDelta, match="negative"):
        decoded(hostile, format_)


@pytest.mark.parametrize(
    ("indices", "reason"),
    [
        ([4, 0], "row 4 is beyond"),
        ([0, 4], "column 4 is beyond"),
        ([0, 0, 3, 1], "column 4 is beyond"),
        ([2**31 - 1, 2**31 - 1, 0, 0], "row 4294967294 is beyond"),
    ],
)
def test_indices_beyond_the_tensor_are_refused(indices: list[int], reason: str) -> None:
    count = len(indices) // 2
    payload = encode_payload({"w": change((4, 4), list(range(count)))}, V3)
    data = len(payload) - 4 * len(indices) - 2 * count
    raw = np.array(indices, "<i4").tobytes()
    with pytest.raises(MalformedDelta, match=reason):
        decoded(payload[:data] + raw + payload[data + len(raw) :], V3)


def first(header: dict[str, Any]) -> dict[str, Any]:
    return header["tensors"][0]


@pytest.mark.parametrize(
    "edit",
    [
        lambda h: h.update(tensors=None),
        lambda h: h.update(tensors=[None]),
        lambda h: h.update(tensors=[{}] * 70_000),
        lambda h: h["tensors"].append(first(h)),
        lambda h: first(h).update(name=7),
        lambda h: first(h).update(shape=[]),
        lambda h: first(h).update(shape=[-2, -3]),
        lambda h: first(h).update(shape=[2.0, 3]),
        lambda h: first(h).update(shape=[True, 3]),
        lambda h: first(h).update(shape=[2**40, 2**40]),
        lambda h: first(h).update(shape=[1] * 99),
        lambda h: first(h).update(shape=[0, 3]),
        lambda h: first(h).update(shape=[1, 2]),
        lambda h: first(h).update(num_nonzero=-1),
        lambda h: first(h).update(num_nonzero=10**12),
        lambda h: first(h).update(num_nonzero=1),
        lambda h: first(h).update(num_nonzero=2.0),
        lambda h: first(h).update(value_dtype="float64"),
        lambda h: first(h).update(value_dtype=["float32"]),
        lambda h: first(h).update(row_dtype="int64"),
        lambda h: first(h).update(col_dtype=None),
        lambda h: first(h).update(indices_offset=-4),
        lambda h: first(h).update(indices_offset=2),
        lambda h: first(h).update(values_offset=0),
        lambda h: first(h).update(values_offset=10**15),
        lambda h: first(h).update(values_size=2),
        lambda h: first(h).update(rows_size=10**9),
        lambda h: h["tensors"][1].update(indices_offset=0),
        lambda h: h["tensors"].pop(),
    ],
)
def test_header_that_does_not_describe_its_data_is_refused(
    edit: Callable[[dict[str, Any]], object],
) -> None:
    payload = encode_payload({"a": change((2, 3), [1, 4]), "b": change((5,), [0])}, V31)
    assert len(decoded(payload)) == 2
    with pytest.raises(MalformedDelta):
        decoded(edited(payload, edit))


def test_header_of_absurd_length_or_depth_is_refused() -> None:
    with pytest.raises(MalformedDelta, match="claims a header"):
        decoded((2**32 - 1).to_bytes(4, "little") + b"{}")
    deep = b"[" * 200_000
    with pytest.raises(MalformedDelta, match="not JSON"):
        decoded(len(deep).to_bytes(4, "little") + deep)


def test_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    assert len(bomb) < 10_000
    pieces = inflate(io.BytesIO(bomb), payload_limit(1000))
    with pytest.raises(MalformedDelta, match="inflates to 50000000 bytes"):
        next(pieces)


def test_frame_that_hides_or_understates_its_size_is_refused() -> None:
    hiding = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(MalformedDelta, match="does not name its size"):
        list(inflate(io.BytesIO(hiding), 10_000))
    frame = bytearray(compress(bytes(range(256)) * 4))
    # The size of a frame this small is two bytes after the descriptor, less 256.
    frame[5:7] = (100).to_bytes(2, "little")
    with pytest.raises(MalformedDelta):
        list(inflate(io.BytesIO(bytes(frame)), 10_000))


def test_truncated_frame_is_refused() -> None:
    frame = compress(np.random.default_rng(0).bytes(5000))
    for length in (1, 4, 8, 100, len(frame) - 1):
        with pytest.raises(MalformedDelta):
            list(inflate(io.BytesIO(frame[:length]), 10_000))
    assert b"".join(inflate(io.BytesIO(frame), 10_000))
    assert not list(inflate(io.BytesIO(b""), 10_000))
