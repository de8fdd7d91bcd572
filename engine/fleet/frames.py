"""How challenges and answers travel: canonical JSON, and frames of one JSON line with arrays.

An answer comes from a machine that may lie, so reading one takes nothing for granted: sizes are
bounded before anything is copied, numbers are finite, keys occur once, and every array has the
name, the type and at most the shape its reader expects. Nothing read is ever executed.

A frame is `{"arrays": [[name, dtype, shape], ...], "header": {...}}` as canonical JSON, a newline,
and the arrays' bytes one after the other: sorted by name, row-major, little-endian.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError

MAX_HEADER_BYTES: Final = 1 << 20

_DTYPES: Final = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {"f4", "f8"}


class BadFrame(WindrowError):
    """Bytes from outside are no JSON object or frame of the kind expected, or are too many."""


def to_json(value: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinities."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def from_json(data: bytes, *, max_bytes: int = MAX_HEADER_BYTES) -> dict[str, Any]:
    """A JSON object from outside. Raises BadFrame; its fields are still to be checked."""
    if len(data) > max_bytes:
        raise BadFrame(f"JSON of {len(data)} bytes; at most {max_bytes} are read")
    try:
        value = json.loads(
            data.decode(),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise BadFrame(f"JSON holds a {type(value).__name__}, not an object")
    return value


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A frame. Raises BadFrame for an array that is not of integers or floats."""
    kept = {}
    for name in sorted(arrays):
        array = arrays[name]
        if array.dtype.str[1:] not in _DTYPES:
            raise BadFrame(f"array {name!r} is of {array.dtype}, which no frame carries")
        kept[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
    described = [[name, array.dtype.str[1:], list(array.shape)] for name, array in kept.items()]
    line = to_json({"arrays": described, "header": header})
    return b"\n".join((line, b"".join(array.tobytes() for array in kept.values())))


def unpack(
    data: bytes,
    *,
    max_bytes: int,
    expected: Mapping[str, tuple[str, Sequence[int]]],
    max_header_bytes: int = MAX_HEADER_BYTES,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header of a frame and exactly the arrays expected, each a copy of its own.

    expected: by name the dtype, e.g. "u4", and the most each dimension may be. A shape of fewer
    rows is taken: whoever needs all of them looks. The header's fields and floats in arrays are
    still to be checked. Raises BadFrame.
    """
    if len(data) > max_bytes:
        raise BadFrame(f"a frame of {len(data)} bytes; at most {max_bytes} are read")
    end = data.find(b"\n", 0, max_header_bytes + 1)
    if end < 0:
        raise BadFrame(f"no line of JSON within the first {max_header_bytes} bytes")
    frame = from_json(data[:end], max_bytes=max_header_bytes)
    header, described = frame.get("header"), frame.get("arrays")
    if frame.keys() != {"header", "arrays"} or not isinstance(header, dict):
        raise BadFrame("the line of JSON has not just a header and arrays")
    names = sorted(expected)
    if not isinstance(described, list) or len(described) != len(names):
        raise BadFrame(f"a frame without just the arrays {', '.join(names)}")
    arrays: dict[str, NDArray[Any]] = {}
    start = end + 1
    for name, described_array in zip(names, described, strict=True):
        dtype, bound = expected[name]
        shape = _shape(described_array, name, dtype, bound)
        count = math.prod(shape)
        size = count * np.dtype(dtype).itemsize
        if size > len(data) - start:
            raise BadFrame(f"array {name!r} says {size} bytes; {len(data) - start} are left")
        flat = np.frombuffer(data, np.dtype(f"<{dtype}"), count, start)
        arrays[name] = flat.astype(dtype).reshape(shape)
        start += size
    if start != len(data):
        raise BadFrame(f"{len(data) - start} bytes follow the last array")
    return header, arrays


def _shape(described: object, name: str, dtype: str, bound: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(described, list) or described[:2] != [name, dtype] or len(described) != 3:
        raise BadFrame(f"array {name!r} of {dtype} is not where it should be")
    shape = described[2]
    if (
        not isinstance(shape, list)
        or len(shape) != len(bound)
        or not all(
            type(size) is int and 0 <= size <= most for size, most in zip(shape, bound, strict=True)
        )
    ):
        raise BadFrame(f"array {name!r} has the shape {str(shape)[:80]}; at most {tuple(bound)}")
    return tuple(shape)


def _no_constant(name: str) -> object:
    raise BadFrame(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadFrame(f"{text[:40]} is too large a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadFrame("a key occurs twice")
    return fields
