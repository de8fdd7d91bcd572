"""How much memory reading a Parquet file can take, found before it is read.

A footer may claim anything, and a page of a few bytes may stand for a billion values or for one
long text repeated a million times. What a reader allocates follows the page headers, so those are
walked: bytes of every page, values of every page, and for texts stored as a dictionary the
longest entry times the values that may refer to it.
"""

import struct
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from windrow import WindrowError
from windrow.networks.grail.thrift_compact import MalformedThrift, Struct, read_struct

MAX_FOOTER_BYTES: Final = 2**20
MAX_PAGE_HEADER_BYTES: Final = 2**16
_USUAL_PAGE_HEADER_BYTES: Final = 2**9
MAX_PAGES: Final = 100_000

_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_PLAIN: Final = 0
_DICTIONARY_ENCODINGS: Final = frozenset({2, 8})
_DELTA_BYTE_ARRAY: Final = 7
FRONT_CODED_ROWS: Final = 8
"""Rows of a batch where texts are front-coded: each may repeat all of the one before it, so that
one page of a batch can expand to its own size for every row. The sum is counted as batches come."""

_UNCOMPRESSED: Final = 0
_CODECS: Final = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_BYTE_ARRAY: Final = 6
_VALUE_BYTES: Final = {0: 1, 1: 4, 2: 8, 4: 4, 5: 8, _BYTE_ARRAY: 16}
_LEVEL_BYTES: Final = 4  # one 16-bit definition and one repetition level a value


class DamagedParquet(WindrowError):
    """A footer or pages that cannot be read; the message says which."""


class BrokenStream(DamagedParquet):
    """Bytes that a reader stumbles over while it reads, as over a disk's error.

    The Parquet library calls these an error of the operating system, and not an invalid file.
    """


class ExcessivePages(WindrowError):
    """Pages that expand to more than the limit, or in a way that cannot be bounded."""


@dataclass(frozen=True)
class Column:
    """One column chunk as the footer describes it. Numbers for types are Parquet's own.

    rows: of its row group.
    """

    path: str
    physical_type: int
    codec: int
    values: int
    start: int
    end: int
    rows: int


@dataclass(frozen=True)
class Footer:
    """What a footer claims. rows: of the file; group_rows: of each row group."""

    rows: int
    group_rows: tuple[int, ...]
    columns: tuple[Column, ...]
    metadata: dict[bytes, bytes]


def read_footer(file: pa.NativeFile) -> Footer:
    """The footer of a file of at least 12 bytes. Raises DamagedParquet, ExcessivePages."""
    file.seek(file.size() - 8)
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or not 0 < length <= min(MAX_FOOTER_BYTES, file.size() - 12):
        raise DamagedParquet(f"no Parquet footer of up to {MAX_FOOTER_BYTES} bytes at its end")
    file.seek(file.size() - 8 - length)
    try:
        fields, _ = read_struct(file.read(length))
        leaves = [_integer(element[1]) for element in fields[2] if not element.get(5)]
        groups = [
            [_column(chunk[3], _integer(group[3])) for chunk in group[1]] for group in fields[4]
        ]
        # A reader decodes by the schema's types, so a column must not claim another one.
        if any([column.physical_type for column in group] != leaves for group in groups):
            raise ExcessivePages("its columns are not those of its schema")
        return Footer(
            rows=_integer(fields[3]),
            group_rows=tuple(_integer(group[3]) for group in fields[4]),
            columns=tuple(column for group in groups for column in group),
            metadata={bytes(pair[1]): bytes(pair[2]) for pair in fields.get(5, [])},
        )
    except (MalformedThrift, LookupError, TypeError, AttributeError, ValueError) as error:
        raise BrokenStream(f"damaged footer: {error}") from error


def _column(fields: Struct, rows: int) -> Column:
    start, dictionary = _integer(fields[9]), _integer(fields.get(11, 0))
    if 0 < dictionary < start:
        start = dictionary
    return Column(
        path=".".join(part.decode(errors="replace") for part in fields[3]),
        physical_type=_integer(fields[1]),
        codec=_integer(fields[4]),
        values=_integer(fields[5]),
        start=start,
        end=start + _integer(fields[7]),
        rows=rows,
    )


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a {type(value).__name__} where the footer needs an integer")
    return value


@dataclass
class PageBudget:
    """Counts what a file's pages expand to and refuses more than `limit` bytes.

    front_coded: whether some texts may expand further, batch by batch.
    """

    file: pa.NativeFile
    limit: int
    spent: int = 0
    pages: int = 0
    front_coded: bool = False

    def charge(self, column: Column) -> None:
        """Charge one column chunk. Raises DamagedParquet and ExcessivePages."""
        position, seen, longest = column.start, 0, 0
        while seen < column.values and position < column.end:
            header, body = self._page_header(column, position)
            expanded, stored = header.get(2), header.get(3)
            if not isinstance(expanded, int) or not isinstance(stored, int):
                raise BrokenStream(f"column {column.path}: page without sizes at byte {position}")
            if expanded < 0 or stored < 0 or body + stored > self.file.size():
                raise BrokenStream(f"column {column.path}: damaged page at byte {position}")
            self._spend(column, expanded)
            values, encoding = _values_and_encoding(header)
            if header.get(1) == _DICTIONARY_PAGE:
                if column.physical_type == _BYTE_ARRAY:
                    longest = self._longest_entry(column, body, stored, expanded, values)
            else:
                seen += values
                if encoding == _DELTA_BYTE_ARRAY:
                    self._charge_front_coded(column, expanded)
                    encoding = _PLAIN
                self._spend(column, values * _bytes_a_value(column, encoding, longest))
            position = body + stored
        if seen < column.values:
            raise BrokenStream(
                f"column {column.path}: {seen} values of the {column.values} claimed"
            )

    def _charge_front_coded(self, column: Column, expanded: int) -> None:
        """Charge the most that one batch of a front-coded page can expand to."""
        if column.values > column.rows:
            raise ExcessivePages(f"column {column.path}: lists of front-coded texts are not read")
        self.front_coded = True
        worst = expanded * FRONT_CODED_ROWS
        if self.spent + worst > self.limit:
            raise ExcessivePages(
                f"column {column.path}: front-coded texts may expand to more than {self.limit} "
                "bytes"
            )

    def _spend(self, column: Column, size: int) -> None:
        self.spent += size
        if self.spent > self.limit:
            raise ExcessivePages(
                f"column {column.path}: pages expand to more than {self.limit} bytes"
            )

    def _page_header(self, column: Column, position: int) -> tuple[Struct, int]:
        """The page header at a byte position, and where the page's body begins."""
        self.pages += 1
        if self.pages > MAX_PAGES:
            raise ExcessivePages(f"column {column.path}: more than {MAX_PAGES} pages")
        if not 0 < position < self.file.size():
            raise BrokenStream(f"column {column.path}: pages at byte {position}")
        try:
            return self._struct_at(position, _USUAL_PAGE_HEADER_BYTES)
        except MalformedThrift:
            pass  # cut off, where the page's statistics quote long texts
        try:
            return self._struct_at(position, MAX_PAGE_HEADER_BYTES)
        except MalformedThrift as error:
            raise BrokenStream(
                f"column {column.path}: page header at byte {position}: {error}"
            ) from error

    def _struct_at(self, position: int, most: int) -> tuple[Struct, int]:
        """The struct at a byte position, of at most so many bytes, and where it ends."""
        self.file.seek(position)
        header, used = read_struct(self.file.read(most))
        return header, position + used

    def _longest_entry(
        self, column: Column, body: int, stored: int, expanded: int, entries: int
    ) -> int:
        """Bytes of a text dictionary's longest entry; the whole page's where it cannot be told."""
        if column.codec not in _CODECS and column.codec != _UNCOMPRESSED:
            return expanded
        self.file.seek(body)
        page = self.file.read(stored)
        if column.codec != _UNCOMPRESSED:
            try:
                page = pa.Codec(_CODECS[column.codec]).decompress(page, expanded, asbytes=True)
            except (pa.ArrowException, OSError) as error:
                raise BrokenStream(
                    f"column {column.path}: damaged dictionary at byte {body}"
                ) from error
        longest = position = 0
        while entries > 0 and position + 4 <= len(page):
            (length,) = struct.unpack_from("<I", page, position)
            longest = max(longest, length)
            position += 4 + length
            entries -= 1
        return longest


def _bytes_a_value(column: Column, encoding: int, longest: int) -> int:
    width = _VALUE_BYTES.get(column.physical_type, 16) + _LEVEL_BYTES
    return width + longest if encoding in _DICTIONARY_ENCODINGS else width


def _values_and_encoding(header: Struct) -> tuple[int, int]:
    """Number of values of a page and their encoding; (0, -1) for a page that holds none."""
    kind = header.get(1)
    numbers = {_DATA_PAGE: (5, 2), _DATA_PAGE_V2: (8, 4), _DICTIONARY_PAGE: (7, 2)}
    if not isinstance(kind, int) or kind not in numbers:
        return 0, -1
    number, encoding = numbers[kind]
    fields = header.get(number)
    values, how = (fields.get(1), fields.get(encoding)) if isinstance(fields, dict) else (-1, -1)
    if not isinstance(values, int) or not isinstance(how, int) or values < 0:
        raise BrokenStream("a page header without its number of values and their encoding")
    return values, how
