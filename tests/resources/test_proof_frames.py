"""The words between a run and its proof workers, from a side that may not mean well."""

import json
import socket
import struct
from typing import Any

import numpy as np
import pytest

from windrow.resources.proof_pool.frames import (
    MAX_ARRAYS,
    MAX_FRAME,
    MAX_HEADER,
    MalformedFrame,
    decode,
    encode,
    receive,
    send,
)

ARRAYS = [np.arange(-3, 4, dtype=np.int8), np.arange(5, dtype=np.int32), np.ones(3, np.float32)]


def frame_of(document: object, data: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    return struct.pack(">I", len(text)) + text + data


def test_a_message_arrives_as_it_was_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, encode({"op": "prove", "n": [1, 2]}, ARRAYS), 5.0)
        send(ours, encode({"op": "hello"}), 5.0)
        theirs.settimeout(5.0)
        # Both may arrive in one piece, so the second is read after the first was answered.
        frame = theirs.recv(1 << 20)
    (length,) = struct.unpack_from(">Q", frame)
    message = decode(frame[8 : 8 + length])
    assert message.header == {"op": "prove", "n": [1, 2]}
    for sent, got in zip(ARRAYS, message.arrays, strict=True):
        assert sent.dtype == got.dtype
        assert sent.tolist() == got.tolist()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00\x00",
        struct.pack(">I", MAX_HEADER + 1) + b"{}",
        struct.pack(">I", 50) + b"{}",
        struct.pack(">I", 2) + b"\xff\xff",
        struct.pack(">I", 100_000) + b"[" * 100_000,
        frame_of([]),
        frame_of({"header": {}}),
        frame_of({"header": [], "arrays": []}),
        frame_of({"header": {}, "arrays": {}}),
        frame_of({"header": {}, "arrays": [["int32", 0]] * (MAX_ARRAYS + 1)}),
        frame_of({"header": {}, "arrays": [["object", 1]]}, b"12345678"),
        frame_of({"header": {}, "arrays": [["int32", -1]]}),
        frame_of({"header": {}, "arrays": [["int32", True]]}, b"1234"),
        frame_of({"header": {}, "arrays": [["int32", 2]]}, b"1234"),
        frame_of({"header": {}, "arrays": [["int32", 10**18]]}, b"1234"),
        frame_of({"header": {}, "arrays": [["int8", 1]]}, b"12"),
    ],
)
def test_what_is_no_message_is_named(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode(frame)


@pytest.mark.parametrize("arrays", [[np.zeros(1)], [np.zeros(1, np.int8)] * (MAX_ARRAYS + 1)])
def test_what_cannot_be_said_is_named(arrays: list[Any]) -> None:
    with pytest.raises(MalformedFrame):
        encode({}, arrays)


@pytest.mark.parametrize(
    "data", [struct.pack(">Q", MAX_FRAME + 1), struct.pack(">Q", 1) + b"too long", b"cut off"]
)
def test_a_frame_of_another_length_than_said_is_named(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(data)
        with pytest.raises(MalformedFrame):
            receive(theirs, 5.0)


def test_the_end_of_a_talk_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        assert receive(theirs, 5.0) is None
