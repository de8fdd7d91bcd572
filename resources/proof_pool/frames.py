"""What a run and its proof workers say to each other: a JSON header and raw arrays, never pickle.

A frame is the length of the header (4 bytes, big-endian), the header as UTF-8 JSON, then the bytes
of the arrays it lists, one after the other, little-endian. On a socket 8 bytes of length precede a
frame.
"""

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError

MAX_FRAME: Final = 256 * 1024 * 1024
MAX_HEADER: Final = 1024 * 1024
MAX_ARRAYS: Final = 4096
PIECE: Final = 1 << 20
DTYPES: Final = {"int8": "<i1", "int32": "<i4", "float32": "<f4"}
_LENGTH: Final = struct.Struct(">Q")
_HEADER: Final = struct.Struct(">I")


class MalformedFrame(WindrowError):
    """Bytes from a proof worker, or for one, that are no message."""


@dataclass(frozen=True)
class Message:
    """header: JSON object; arrays: one-dimensional, of a type in DTYPES."""

    header: dict[str, Any]
    arrays: list[NDArray[Any]] = field(default_factory=list)


def encode(header: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> bytes:
    """The frame of a message. Raises MalformedFrame where a bound would be broken."""
    listed = [(array.dtype.name, len(array)) for array in arrays]
    text = json.dumps({"header": header, "arrays": listed}).encode()
    wrong = [name for name, _ in listed if name not in DTYPES]
    size = _HEADER.size + len(text) + sum(array.nbytes for array in arrays)
    if wrong or len(text) > MAX_HEADER or len(arrays) > MAX_ARRAYS or size > MAX_FRAME:
        raise MalformedFrame(
            f"a message of {len(arrays)} arrays, {size} bytes and types {sorted(set(wrong))} is "
            f"more than {MAX_ARRAYS} arrays, {MAX_FRAME} bytes and {sorted(DTYPES)}; send fewer "
            "sequences at a time"
        )
    parts = [np.ascontiguousarray(a, DTYPES[a.dtype.name]).tobytes() for a in arrays]
    return b"".join([_HEADER.pack(len(text)), text, *parts])


def decode(frame: bytes) -> Message:
    """The message of a frame. Raises MalformedFrame; the arrays are read-only views."""
    if not _HEADER.size <= len(frame) <= MAX_FRAME:
        raise MalformedFrame(f"a frame of {len(frame)} bytes")
    (length,) = _HEADER.unpack_from(frame)
    start = _HEADER.size + length
    if length > MAX_HEADER or start > len(frame):
        raise MalformedFrame(f"a frame of {len(frame)} bytes with a header of {length}")
    try:
        document = json.loads(frame[_HEADER.size : start])
        header, listed = document["header"], document["arrays"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedFrame(f"a frame whose header is no message: {error}") from error
    if not isinstance(header, dict) or not isinstance(listed, list) or len(listed) > MAX_ARRAYS:
        raise MalformedFrame("a frame whose header lists no arrays")
    arrays = []
    for entry in listed:
        dtype, count = _listed(entry)
        stop = start + count * dtype.itemsize
        if stop > len(frame):
            raise MalformedFrame(f"a frame of {len(frame)} bytes ends within an array")
        arrays.append(np.frombuffer(frame, dtype, count, start))
        start = stop
    if start != len(frame):
        raise MalformedFrame(f"a frame with {len(frame) - start} bytes beyond its arrays")
    return Message(header, arrays)


def _listed(entry: object) -> tuple[np.dtype[Any], int]:
    if isinstance(entry, list) and len(entry) == 2:
        name, count = entry
        if isinstance(name, str) and name in DTYPES and type(count) is int and count >= 0:
            return np.dtype(DTYPES[name]), count
    raise MalformedFrame(f"a frame lists {entry!r:.80} as an array")


class Incoming:
    """A frame that arrives piece by piece. One is under way at a time: each side has its turn."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> bytes | None:
        """Add what arrived; the frame once it is whole. Raises MalformedFrame."""
        self._data += data
        if len(self._data) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._data)
        if length > MAX_FRAME or len(self._data) > _LENGTH.size + length:
            raise MalformedFrame(f"{len(self._data)} bytes for a frame of {length}")
        if len(self._data) < _LENGTH.size + length:
            return None
        return bytes(self._data[_LENGTH.size :])


def send(connection: socket.socket, frame: bytes, timeout: float) -> None:
    """Send a frame. Raises OSError; TimeoutError where it does not get through in time."""
    connection.settimeout(timeout)
    connection.sendall(_LENGTH.pack(len(frame)) + frame)


def receive(connection: socket.socket, timeout: float) -> bytes | None:
    """The next frame, whenever it begins; None where the other side hung up instead.

    timeout: seconds between one piece of a frame and the next. Raises MalformedFrame, OSError.
    """
    incoming = Incoming()
    connection.settimeout(None)
    while data := connection.recv(PIECE):
        frame = incoming.take(data)
        if frame is not None:
            return frame
        connection.settimeout(timeout)
    if connection.gettimeout() is not None:
        raise MalformedFrame("the other side hung up in the middle of a frame")
    return None
