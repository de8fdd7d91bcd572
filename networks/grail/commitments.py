"""Sketches between int64 lists and the JSON text that a window file stores and a commit signs.

A row's commitments are ``[{"sketch": s0}, {"sketch": s1}, ...]``, one entry per token
(grail-protocol §4.3). The file stores that text with spaces (§8.2), the commit binding hashes it
without (§5.2). A window holds millions of entries, so both directions run over whole columns;
only a row whose text is unlike anything an honest writer makes is parsed by itself.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from windrow import WindrowError
from windrow.networks.grail.commitment_texts import (
    BEFORE,
    BETWEEN,
    CLOSING,
    OPENING,
    SEPARATOR,
    canonical_rows,
    surely_canonical,
    text_bounds,
)

MAX_JSON_BYTES: Final = 4 * 1024 * 1024
"""Longest irregular text that is parsed: 256 bytes for each of 16384 tokens."""

_SPACED: Final = (BEFORE, BETWEEN)
_COMPACT: Final = ('{"sketch":', ",")
"""What stands before a value, and between two entries."""

_HASH_ROWS: Final = 256
_LISTS: Final = pa.list_(pa.int64())
_INT64: Final = range(-(2**63), 2**63)


class CommitmentsError(WindrowError):
    """Sketches that cannot be written as commitments."""


@dataclass(frozen=True)
class IrregularJson:
    """A JSON text whose exact content the columns cannot carry, kept as it was found.

    text: the column's text, None where the column was null or not UTF-8.
    reason: what is irregular about it, and where.
    is_json: False means that the network cannot decode the whole file for this text and treats
    it as missing (grail-validation §3.5).
    beyond: True where the text is longer than this reader takes on, so that it is not known.
    """

    text: str | None
    reason: str
    is_json: bool
    beyond: bool = False

    def parsed(self) -> Any:
        """The value the network works with; raises CommitmentsError where the text is not JSON."""
        if self.text is None or not self.is_json:
            raise CommitmentsError(f"no value to work with: {self.reason}")
        try:
            return json.loads(self.text)
        except RecursionError as error:
            raise CommitmentsError(f"nested too deeply: {self.reason}") from error

    def compact(self) -> bytes:
        """JSON_c of the value: sorted keys, no spaces, ASCII; what the network hashes (§5.2)."""
        value = self.parsed()
        try:
            return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        except RecursionError as error:
            raise CommitmentsError(f"nested too deeply: {self.reason}") from error


@dataclass(frozen=True)
class CheckedCommitments:
    """Commitment texts of n rows, each known for what it is.

    texts: string [n], every one canonical; null where a row has no value for some position.
    irregular: by row, every row whose content its canonical text does not describe exactly.
    """

    texts: pa.StringArray
    irregular: dict[int, IrregularJson]


def encode_spaced(sketches: pa.ListArray) -> pa.StringArray:
    """The text a window file stores (§8.2), one per row.

    sketches: list<int64> without nulls; at most 2 GiB of text. Raises CommitmentsError on nulls.
    """
    return _encode(sketches, _SPACED)


def encode_compact(sketches: pa.ListArray) -> pa.StringArray:
    """JSON_c of the commitments (§5.2), one per row; arguments as `encode_spaced`."""
    return _encode(sketches, _COMPACT)


def commitments_hash(sketches: pa.ListArray) -> list[bytes]:
    """SHA-256 of each row's compact text (§5.2), 32 bytes each; arguments as `encode_spaced`."""
    hashes: list[bytes] = []
    for start in range(0, len(sketches), _HASH_ROWS):
        texts = encode_compact(sketches.slice(start, _HASH_ROWS)).cast(pa.binary())
        hashes.extend(hashlib.sha256(text.as_buffer()).digest() for text in texts)
    return hashes


def compact_text(text: pa.StringScalar) -> bytes:
    """JSON_c (§5.2) of a row's canonical text, whose only spaces are those between its parts.

    Raises CommitmentsError where it is null.
    """
    if not text.is_valid:
        raise CommitmentsError("a row without commitments; every token needs a sketch")
    compact: bytes = text.as_buffer().to_pybytes().translate(None, b" ")
    return compact


def check_spaced(texts: pa.StringArray) -> CheckedCommitments:
    """The commitment texts of a window file, every one checked. Never raises on any text."""
    if surely_canonical(texts):
        return CheckedCommitments(texts, {})
    canonical = canonical_rows(texts)
    others: list[str | None] = []
    irregular: dict[int, IrregularJson] = {}
    for row in pc.indices_nonzero(pc.invert(canonical)).to_pylist():
        values, problem = _decode_row(texts[row])
        others.append(None if values is None else _spelled(values))
        if problem is not None:
            irregular[row] = problem
    replaced = _merged(canonical, texts.filter(canonical), pa.array(others, pa.string()))
    return CheckedCommitments(replaced, irregular)


def decode_sketches(texts: pa.StringArray) -> pa.ListArray:
    """list<int64> [n] of canonical texts, as `check_spaced` leaves them; null for null."""
    filled = pc.fill_null(pc.starts_with(texts, OPENING), False)
    if pc.all(filled).as_py():
        return _integers(_split(texts))
    empty = pc.if_else(pc.is_valid(texts.filter(pc.invert(filled))), pa.scalar([], _LISTS), None)
    return _merged(filled, _integers(_split(texts.filter(filled))), empty)


def parse_json(text: pa.StringScalar) -> tuple[Any, IrregularJson | None]:
    """The value of one untrusted JSON text, parsed as the network parses it but within bounds.

    A text that is null, not UTF-8, longer than MAX_JSON_BYTES, nested too deeply or not JSON
    comes back as (None, what is wrong with it).
    """
    if not text.is_valid:  # not parsed by the network either: the value is None there
        return None, IrregularJson("null", "null instead of JSON text", is_json=True)
    raw = text.as_buffer()
    if raw.size > MAX_JSON_BYTES:
        reason = f"{raw.size} bytes of irregular JSON; at most {MAX_JSON_BYTES} are read"
        return None, IrregularJson(None, reason, is_json=False, beyond=True)
    try:
        string = raw.to_pybytes().decode()
    except UnicodeDecodeError as error:
        return None, IrregularJson(None, f"not UTF-8 at byte {error.start}", is_json=False)
    try:
        return json.loads(string), None
    except (ValueError, RecursionError) as error:
        return None, IrregularJson(string, f"not JSON: {error}", is_json=False)


def _encode(sketches: pa.ListArray, form: tuple[str, str]) -> pa.StringArray:
    values = sketches.flatten()
    if sketches.null_count or values.null_count:
        raise CommitmentsError(
            f"{sketches.null_count} rows and {values.null_count} positions have no sketch; "
            "every token needs one"
        )
    before, between = form
    # A true sketch has 28,449 possible values (§4.2), so each distinct entry is spelled once only.
    distinct = values.dictionary_encode()
    digits = distinct.dictionary.cast(pa.string())
    spelled = pc.binary_join_element_wise(before, digits, "}" + between, "")
    entries = spelled.take(distinct.indices)
    # A row's entries now lie one after another in memory, its text but for the brackets.
    bounds = text_bounds(sketches)
    row_starts = pa.py_buffer(text_bounds(entries)[bounds - bounds[0]])
    rows = pa.Array.from_buffers(
        pa.binary(), len(sketches), [None, row_starts, entries.buffers()[2]]
    )
    bodies = pc.binary_slice(rows, 0, -len(between)).view(pa.string())
    return pc.binary_join_element_wise("[", bodies, "]", "")


def _merged(chosen: pa.BooleanArray, where: pa.Array, otherwise: pa.Array) -> pa.Array:
    """The values of `where` at the chosen rows and those of `otherwise` at the others, in order."""
    places = pa.concat_arrays([pc.indices_nonzero(chosen), pc.indices_nonzero(pc.invert(chosen))])
    return pa.concat_arrays([where, otherwise]).take(pc.array_sort_indices(places))


def _spelled(values: list[int]) -> str:
    """Canonical text of one row."""
    return "[" + BETWEEN.join(f"{BEFORE}{value}}}" for value in values) + "]"


def _split(texts: pa.StringArray) -> pa.ListArray:
    """list<string>: the integers of canonical texts with at least one entry each."""
    bodies = pc.binary_slice(texts.cast(pa.binary()), len(OPENING), -len(CLOSING))
    return pc.split_pattern(bodies.view(pa.string()), SEPARATOR)


def _integers(digits: pa.ListArray) -> pa.ListArray:
    """list<int64> of list<string>, every string the digits of an int64."""
    return pa.ListArray.from_arrays(digits.offsets, digits.flatten().cast(pa.int64()))


def _decode_row(text: pa.StringScalar) -> tuple[list[int] | None, IrregularJson | None]:
    """One row's sketches, where it has them all, and what the int64 values leave out."""
    entries, problem = parse_json(text)
    if problem is not None:
        return None, problem
    if not isinstance(entries, list):
        kind = type(entries).__name__
        return None, IrregularJson(text.as_py(), f"a {kind} instead of a list", is_json=True)
    values: list[int] = []
    extra: str | None = None
    for position, entry in enumerate(entries):
        fault = _entry_fault(entry)
        if fault is not None:
            return None, IrregularJson(text.as_py(), f"entry {position}: {fault}", is_json=True)
        if extra is None and len(entry) > 1:
            extra = f"entry {position}: {len(entry) - 1} keys beside 'sketch'"
        values.append(entry["sketch"])
    return values, None if extra is None else IrregularJson(text.as_py(), extra, is_json=True)


def _entry_fault(entry: object) -> str | None:
    """Why an entry has no sketch that an int64 can hold."""
    if not isinstance(entry, dict):
        return f"a {type(entry).__name__} instead of an object"
    if "sketch" not in entry:
        return "no 'sketch'"
    value = entry["sketch"]
    if type(value) is not int:
        return f"sketch is a {type(value).__name__}, not an integer"
    return None if value in _INT64 else "sketch does not fit 64 bits"
