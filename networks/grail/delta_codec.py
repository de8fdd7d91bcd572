"""The three forms in which a delta is stored: sparse codec v2, v3 and v3.1 (grail-protocol §9.5).

A payload is ``u32 header length || header JSON || data``, little-endian, compressed with zstd. A
payload from outside is checked whole before any of it is used: the header against the data, the
pieces of data against each other, every position against its tensor.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.delta import (
    BITS,
    MalformedDelta,
    TensorDelta,
    UnencodableDelta,
    ValueType,
)

DeltaFormat = Literal["sparse_codec_v2", "sparse_codec_v3", "sparse_codec_v3.1"]
VERSIONS: Final[Mapping[DeltaFormat, int]] = {
    "sparse_codec_v2": 2,
    "sparse_codec_v3": 3,
    "sparse_codec_v3.1": 31,
}
MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
MAX_TENSORS: Final = 65_536
MAX_DIMENSIONS: Final = 8
MAX_TENSOR_VALUES: Final = 2**40
MAX_INT32: Final = 2**31 - 1
_LENGTH_BYTES: Final = 4
_INDEX_TYPES: Final = {name: np.dtype(name).newbyteorder("<") for name in ("uint8", "uint16")} | {
    "int32": np.dtype("<i4")
}


def payload_limit(parameters: int) -> int:
    """Most bytes that an honest payload over this many parameters inflates to.

    Twelve a parameter: row, column and a float32, each four bytes, were every one changed.
    """
    return _LENGTH_BYTES + MAX_HEADER_BYTES + 12 * parameters


@dataclass(frozen=True)
class _Entry:
    """One tensor as the header describes it. index_types: of the rows and columns; v2 has one."""

    shape: tuple[int, ...]
    count: int
    dtype: ValueType
    index_types: tuple[str, ...]
    indices_offset: int
    values_offset: int
    end: int


class SparseDelta(Mapping[str, TensorDelta]):
    """The tensors a delta changes, each decoded when it is asked for.

    Made by decode_payload; asking raises MalformedDelta for positions that make no sense.
    """

    def __init__(self, entries: Mapping[str, _Entry], data: memoryview) -> None:
        self._entries = entries
        self._data = data

    def __getitem__(self, name: str) -> TensorDelta:
        entry = self._entries[name]
        values = np.frombuffer(self._data, BITS[entry.dtype], entry.count, entry.values_offset)
        try:
            return TensorDelta(entry.shape, entry.dtype, self._positions(entry), values)
        except MalformedDelta as error:
            raise MalformedDelta(f"tensor {name!r:.120}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _positions(self, entry: _Entry) -> NDArray[np.int64]:
        parts, offset = [], entry.indices_offset
        for name in entry.index_types:
            part = np.frombuffer(self._data, _INDEX_TYPES[name], entry.count, offset)
            if entry.count and part.min() < 0:
                raise MalformedDelta("an index of the delta is negative; it is damaged")
            parts.append(part.astype(np.int64))
            offset += part.nbytes
        if len(parts) == 1:
            return np.cumsum(parts[0])
        rows, codes = parts
        if not entry.count:
            return rows
        if rows.sum() >= entry.shape[0]:
            raise MalformedDelta(f"row {rows.sum()} is beyond the {entry.shape[0]} there are")
        begins = rows != 0
        begins[0] = True
        sums = np.cumsum(codes)
        # Columns count anew in every row: take off what had been counted when the row began.
        before = sums[begins] - codes[begins]
        columns = sums - np.repeat(before, np.diff(np.flatnonzero(begins), append=entry.count))
        width = math.prod(entry.shape[1:])
        if columns.max() >= width:
            raise MalformedDelta(f"column {columns.max()} is beyond the {width} there are")
        positions: NDArray[np.int64] = np.cumsum(rows) * width + columns
        return positions


def decode_payload(payload: bytes | memoryview, format: DeltaFormat) -> SparseDelta:  # noqa: A002
    """Read an inflated payload. It must stay unchanged as long as the result is used.

    Nothing at all is an empty delta. Raises MalformedDelta.
    """
    view = memoryview(payload).cast("B")
    if not view:
        return SparseDelta({}, view)
    start = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES <= start <= min(len(view), _LENGTH_BYTES + MAX_HEADER_BYTES):
        raise MalformedDelta(
            f"a delta of {len(view)} bytes claims a header of {start - _LENGTH_BYTES}; it is "
            "damaged or cut short"
        )
    try:
        header = json.loads(bytes(view[_LENGTH_BYTES:start]))
    except (ValueError, RecursionError) as error:
        raise MalformedDelta(f"the header of a delta is not JSON: {error}") from error
    version = header.get("version") if isinstance(header, dict) else None
    if version != VERSIONS[format]:
        raise MalformedDelta(f"a delta of version {version!r:.40} is no {format}")
    tensors = header.get("tensors")
    if not isinstance(tensors, list) or len(tensors) > MAX_TENSORS:
        raise MalformedDelta(f"the header of a delta lists no tensors, or over {MAX_TENSORS}")
    return SparseDelta(_entries(tensors, VERSIONS[format], len(view) - start), view[start:])


def _entries(tensors: list[Any], version: int, size: int) -> dict[str, _Entry]:
    """The header's tensors, whose pieces must follow each other and fill the data (§9.5)."""
    entries: dict[str, _Entry] = {}
    end = 0
    for fields in tensors:
        name = fields.get("name") if isinstance(fields, dict) else None
        if not isinstance(name, str) or name in entries:
            raise MalformedDelta(f"the delta lists tensor {name!r:.120} without a name or twice")
        try:
            entries[name] = _entry(fields, version, end)
        except MalformedDelta as error:
            raise MalformedDelta(f"tensor {name!r:.120}: {error}") from error
        end = entries[name].end
        if end > size:
            raise MalformedDelta(f"tensor {name!r:.120} ends at byte {end}, the data at {size}")
    if end != size:
        raise MalformedDelta(f"the delta holds {size} bytes of data but describes {end}")
    return entries


def _entry(fields: dict[str, Any], version: int, start: int) -> _Entry:
    shape = fields.get("shape")
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise MalformedDelta(f"its shape {shape!r:.80} is no list of 1..{MAX_DIMENSIONS} sizes")
    if any(type(n) is not int or not 0 <= n <= MAX_TENSOR_VALUES for n in shape) or (
        math.prod(shape) > MAX_TENSOR_VALUES
    ):
        raise MalformedDelta(f"its shape {shape!r:.80} is impossible")
    dtype = _value_type(fields.get("value_dtype"))
    count = fields.get("num_nonzero")
    if type(count) is not int or not 0 <= count <= math.prod(shape):
        raise MalformedDelta(f"it claims {count!r:.40} changes of {math.prod(shape)} values")
    index_types = _index_types(fields, version)
    widths = [count * _INDEX_TYPES[name].itemsize for name in index_types]
    expected = {
        "indices_offset": start,
        "indices_size": sum(widths),
        "values_offset": start + sum(widths),
        "values_size": count * BITS[dtype].itemsize,
    }
    if version != VERSIONS["sparse_codec_v2"]:
        expected |= {"rows_size": widths[0], "cols_size": widths[1]}
    for key, value in expected.items():
        if type(fields.get(key)) is not int or fields[key] != value:
            raise MalformedDelta(f"its {key} is {fields.get(key)!r:.40}, its place needs {value}")
    values = expected["values_offset"]
    end = values + expected["values_size"]
    return _Entry(tuple(shape), count, dtype, index_types, start, values, end)


def _value_type(name: object) -> ValueType:
    for known in BITS:
        if name == known:
            return known
    raise MalformedDelta(f"its values are of type {name!r:.40}, not one of {list(BITS)}")


def _index_types(fields: dict[str, Any], version: int) -> tuple[str, ...]:
    if version == VERSIONS["sparse_codec_v2"]:
        return ("int32",)
    if version == VERSIONS["sparse_codec_v3"]:
        return ("int32", "int32")
    types = fields.get("row_dtype"), fields.get("col_dtype")
    for name in types:
        if not isinstance(name, str) or name not in _INDEX_TYPES:
            raise MalformedDelta(f"its indices are of type {name!r:.40}")
    return types  # type: ignore[return-value]  # both are str, seen above


def encode_payload(delta: Mapping[str, TensorDelta], format: DeltaFormat) -> bytes:  # noqa: A002
    """The payload of a delta, tensors in order of name, as the network's own encoder writes it.

    v3 and v3.1 leave out tensors without a change. Raises UnencodableDelta for scalars and for
    indices beyond 32 bits.
    """
    version = VERSIONS[format]
    described, pieces, offset = [], [], 0
    for name in sorted(delta):
        change = delta[name]
        if not change.shape:
            raise UnencodableDelta(f"{name} is a scalar, which deltas cannot hold; publish FULL")
        if version != VERSIONS["sparse_codec_v2"] and not change.positions.size:
            continue
        indices = _indices(name, change, version)
        sizes = [part.nbytes for part in indices]
        fields: dict[str, Any] = {
            "name": name,
            "shape": list(change.shape),
            "num_nonzero": change.positions.size,
            "value_dtype": change.dtype,
        }
        if version == VERSIONS["sparse_codec_v3.1"]:
            fields |= {"row_dtype": indices[0].dtype.name, "col_dtype": indices[1].dtype.name}
        fields |= {"indices_offset": offset, "indices_size": sum(sizes)}
        if len(indices) == 2:
            fields |= {"rows_size": sizes[0], "cols_size": sizes[1]}
        fields |= {"values_offset": offset + sum(sizes), "values_size": change.values.nbytes}
        described.append(fields)
        pieces += [*(part.tobytes() for part in indices), change.values.tobytes()]
        offset += sum(sizes) + change.values.nbytes
    header = json.dumps({"version": version, "tensors": described}, separators=(",", ":")).encode()
    return b"".join((len(header).to_bytes(_LENGTH_BYTES, "little"), header, *pieces))


def _indices(name: str, change: TensorDelta, version: int) -> list[NDArray[Any]]:
    width = math.prod(change.shape[1:])
    largest = int(change.positions[-1]) if change.positions.size else 0
    if version == VERSIONS["sparse_codec_v2"]:
        parts = [np.diff(change.positions, prepend=0)]
    else:
        rows, columns = np.divmod(change.positions, max(width, 1))
        steps = np.diff(rows, prepend=0)
        codes = np.diff(columns, prepend=0)
        begins = steps != 0
        begins[:1] = True
        codes[begins] = columns[begins]
        parts, largest = [steps, codes], max(largest // max(width, 1), width - 1)
    if largest > MAX_INT32:
        raise UnencodableDelta(f"{name} has indices beyond 32 bits; publish a FULL checkpoint")
    if version != VERSIONS["sparse_codec_v3.1"]:
        return [part.astype("<i4") for part in parts]
    return [
        part.astype(_narrowest(part, candidates))
        for part, candidates in zip(
            parts, (("uint8", "uint16", "int32"), ("uint16", "int32")), strict=True
        )
    ]


def _narrowest(part: NDArray[np.int64], candidates: tuple[str, ...]) -> np.dtype[Any]:
    types = [_INDEX_TYPES[name] for name in candidates]
    return next(kind for kind in types if part.max() <= np.iinfo(kind).max)
