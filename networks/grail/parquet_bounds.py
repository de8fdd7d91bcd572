"""How much memory reading a Parquet file can take, found before it is read.

A footer may claim anything, and a page of a few bytes may stand for a billion values or for one
long text repeated a million times. What a reader allocates follows the page headers, so those are
walked: bytes of every page, values of every page, and for texts stored as a dictionary the
longest entry times the values that may refer to it.
"""

import struct
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from windrow import WindrowError

MAX_HEADER_BYTES: Final = 64 * 1024
MAX_PAGES: Final = 100_000

_DICTIONARY_PAGE: Final = 2
_DATA_PAGE: Final = 0
_DATA_PAGE_V2: Final = 3
_DICTIONARY_ENCODINGS: Final = frozenset({2, 8})
_DELTA_BYTE_ARRAY: Final = 7  # front coding: a text may repeat any length of the one before it
_CODECS: Final = {"ZSTD": "zstd", "SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli"}
_VALUE_BYTES: Final = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
_LEVEL_BYTES: Final = 4  # one 16-bit definition and one repetition level a value

Struct = dict[int, Any]
"""A Thrift struct: values by field number; nested structs are Structs, binary values None."""


class DamagedPages(WindrowError):
    """Pages that cannot be read; the message says which."""


class ExcessivePages(WindrowError):
    """Pages that expand to more than the limit, or in a way that cannot be bounded."""


@dataclass
class PageBudget:
    """Counts what a file's pages expand to and refuses more than `limit` bytes."""

    file: pa.NativeFile
    limit: int
    spent: int = 0
    pages: int = field(default=0, repr=False)

    def charge_file(self, metadata: Any) -> None:
        """Charge every column chunk that the footer (pyarrow FileMetaData) lists."""
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for column in range(row_group.num_columns):
                self._charge_column(row_group.column(column))

    def _charge_column(self, column: Any) -> None:
        name = column.path_in_schema
        start = column.data_page_offset
        if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
            start = column.dictionary_page_offset
        position, end = start, start + column.total_compressed_size
        seen, longest = 0, 0
        while seen < column.num_values and position < end:
            header, body = self._page_header(position, name)
            expanded, stored = header.get(2, -1), header.get(3, -1)
            if expanded < 0 or stored < 0 or body + stored > self.file.size():
                raise DamagedPages(f"column {name}: damaged page header at byte {position}")
            self._charge(expanded, name)
            values, encoding = _values_and_encoding(header)
            if header.get(1) == _DICTIONARY_PAGE:
                if column.physical_type == "BYTE_ARRAY":
                    longest = self._longest_entry(column, body, stored, expanded, values)
            else:
                seen += values
                self._charge(values * self._bytes_a_value(column, encoding, longest), name)
            position = body + stored
        if seen < column.num_values:
            raise DamagedPages(f"column {name}: {seen} values of the {column.num_values} claimed")

    def _bytes_a_value(self, column: Any, encoding: int, longest: int) -> int:
        if encoding == _DELTA_BYTE_ARRAY:
            raise ExcessivePages(f"column {column.path_in_schema}: front-coded texts are not read")
        width = _VALUE_BYTES.get(column.physical_type, 16)
        return width + _LEVEL_BYTES + (longest if encoding in _DICTIONARY_ENCODINGS else 0)

    def _charge(self, size: int, name: str) -> None:
        self.spent += size
        if self.spent > self.limit:
            raise ExcessivePages(f"column {name}: pages expand to more than {self.limit} bytes")

    def _page_header(self, position: int, name: str) -> tuple[Struct, int]:
        """The page header at a byte position, and where the page's body begins."""
        self.pages += 1
        if self.pages > MAX_PAGES:
            raise ExcessivePages(f"column {name}: more than {MAX_PAGES} pages")
        self.file.seek(position)
        raw = memoryview(self.file.read_buffer(MAX_HEADER_BYTES)).cast("B")
        try:
            header, used = _read_struct(raw, 0, depth=0)
        except (IndexError, ValueError) as error:
            raise DamagedPages(
                f"column {name}: unreadable page header at byte {position}"
            ) from error
        return header, position + used

    def _longest_entry(
        self, column: Any, body: int, stored: int, expanded: int, entries: int
    ) -> int:
        """Bytes of a text dictionary's longest entry; the whole page's where it cannot be told."""
        if column.compression not in _CODECS and column.compression != "UNCOMPRESSED":
            return expanded
        self.file.seek(body)
        page = self.file.read_buffer(stored)
        try:
            if column.compression in _CODECS:
                page = pa.Codec(_CODECS[column.compression]).decompress(page, expanded)
        except (pa.ArrowException, OSError) as error:
            raise DamagedPages(
                f"column {column.path_in_schema}: damaged dictionary page at byte {body}"
            ) from error
        longest = position = 0
        while entries > 0 and position + 4 <= page.size:
            (length,) = struct.unpack_from("<I", page, position)
            longest = max(longest, length)
            position += 4 + length
            entries -= 1
        return longest


def _values_and_encoding(header: Struct) -> tuple[int, int]:
    """Number of values of a page and their encoding; (0, -1) for a page that holds none."""
    kind = header.get(1)
    if kind == _DATA_PAGE:
        fields, encoding = header.get(5), 2
    elif kind == _DATA_PAGE_V2:
        fields, encoding = header.get(8), 4
    elif kind == _DICTIONARY_PAGE:
        fields, encoding = header.get(7), 2
    else:
        return 0, -1
    if not isinstance(fields, dict) or fields.get(1, -1) < 0:
        raise DamagedPages("a page header without a number of values")
    return fields[1], fields.get(encoding, -1)


def _read_struct(raw: memoryview, position: int, *, depth: int) -> tuple[Struct, int]:
    """One struct of Thrift's compact protocol, lists and maps excepted: page headers have none."""
    if depth > 4:
        raise ValueError("nested too deeply")
    fields: Struct = {}
    number = 0
    while head := raw[position]:
        position += 1
        kind, delta = head & 0x0F, head >> 4
        if delta:
            number += delta
        else:
            number, position = _read_integer(raw, position)
        match kind:
            case 1 | 2:
                fields[number] = kind == 1
            case 3:
                position += 1
            case 4 | 5 | 6:
                fields[number], position = _read_integer(raw, position)
            case 7:
                position += 8
            case 8:
                length, position = _read_varint(raw, position)
                fields[number], position = None, position + length
            case 12:
                fields[number], position = _read_struct(raw, position, depth=depth + 1)
            case _:
                raise ValueError(f"field type {kind}")
    return fields, position + 1


def _read_integer(raw: memoryview, position: int) -> tuple[int, int]:
    value, position = _read_varint(raw, position)
    return (value >> 1) ^ -(value & 1), position


def _read_varint(raw: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("number of more than 10 bytes")
