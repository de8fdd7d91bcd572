"""Reads Thrift's compact protocol, in which a Parquet file writes its footer and page headers.

pyarrow's own accessors cannot be used on an untrusted footer: some of its damages end the process
(measured with pyarrow 26: a column with a level histogram of the wrong size).
"""

from typing import Any, Final

from windrow import WindrowError

Struct = dict[int, Any]
"""Values by field number: int, bool, bytes, list or Struct; a float's 8 bytes are left out."""

MAX_DEPTH: Final = 12  # the footer of a Parquet file nests 8 deep

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


class MalformedThrift(WindrowError):
    """Bytes that are no Thrift struct; says at which byte."""


def read_struct(raw: bytes, position: int = 0) -> tuple[Struct, int]:
    """The struct at a byte position, and the position after it. Raises MalformedThrift.

    What it takes is bounded by the bytes: every value read uses at least one.
    """
    reader = _Reader(raw, position)
    try:
        return reader.struct(0), reader.position
    except IndexError as error:
        raise MalformedThrift(f"a Thrift struct runs past its end, byte {len(raw)}") from error


class _Reader:
    def __init__(self, raw: bytes, position: int) -> None:
        self.raw = raw
        self.position = position

    def struct(self, depth: int) -> Struct:
        if depth > MAX_DEPTH:
            raise MalformedThrift(f"Thrift structs nested too deeply at byte {self.position}")
        fields: Struct = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            kind = head & 0x0F
            if kind in (_TRUE, _FALSE):
                fields[number] = kind == _TRUE
            else:
                fields[number] = self.value(kind, depth)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self.integer()
        if kind == _BINARY:
            return self.binary(self.varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self.items(depth + 1)
        if kind in (_TRUE, _FALSE, _BYTE):
            return self.byte()
        if kind == _DOUBLE:
            self.binary(8)
            return None
        raise MalformedThrift(f"Thrift field type {kind} at byte {self.position}")

    def items(self, depth: int) -> list[Any]:
        if depth > MAX_DEPTH:
            raise MalformedThrift(f"Thrift lists nested too deeply at byte {self.position}")
        head = self.byte()
        count = self.varint() if head >> 4 == 15 else head >> 4
        if count > len(self.raw) - self.position:
            raise MalformedThrift(f"a Thrift list of {count} values at byte {self.position}")
        return [self.value(head & 0x0F, depth) for _ in range(count)]

    def byte(self) -> int:
        byte = self.raw[self.position]
        self.position += 1
        return byte

    def binary(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.raw):
            raise MalformedThrift(f"Thrift text of {length} bytes at byte {self.position}")
        value = self.raw[self.position : end]
        self.position = end
        return value

    def integer(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedThrift(f"Thrift number of more than 10 bytes at byte {self.position}")
