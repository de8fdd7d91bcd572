"""Whether commitment texts are spelled as an honest writer spells them, without reading a number.

A file's commitments are three quarters of its bytes, and most rows are never asked for their
numbers. That every text is canonical JSON has to be known all the same, because a single text
that is none makes the whole file missing (grail-validation §3.5).
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BEFORE: Final = '{"sketch": '
BETWEEN: Final = ", "
OPENING: Final = "[" + BEFORE
CLOSING: Final = "}]"
SEPARATOR: Final = "}" + BETWEEN + BEFORE
"""A canonical text is OPENING, integers with SEPARATOR between them, CLOSING (§8.2)."""

MIN_ENTRY_BYTES: Final = len(SEPARATOR) + 1

_INTEGER: Final = r"(?:0|-?[1-9][0-9]{0,17})"
_CANONICAL: Final = rf'\A\[\{{"sketch": {_INTEGER}\}}(?:, \{{"sketch": {_INTEGER}\}})*\]\z'
"""Canonical text with at least one entry, every integer certain to fit an int64."""

_WORD: Final = 8
_ALL_TRUE: Final = np.uint64(0x0101010101010101)


def canonical_rows(texts: pa.StringArray) -> pa.BooleanArray:
    """bool [n]: canonical texts of at least one entry, every integer of at most 18 digits."""
    return pc.fill_null(pc.match_substring_regex(texts, _CANONICAL), False)


def surely_canonical(texts: pa.StringArray) -> bool:
    """Whether every text is canonical and has no integer below 0 or of more than 15 digits.

    False may only mean that some integer is longer than a sketch's; `canonical_rows` then tells.
    Every byte is accounted for: both ends of each text are compared, separators are counted, and
    as many bytes as are left have to be digits.
    """
    if texts.null_count:
        return False
    if not len(texts):
        return True
    framed = pc.and_(pc.starts_with(texts, OPENING), pc.ends_with(texts, CLOSING))
    if not pc.all(framed).as_py():
        return False
    bounds = text_bounds(texts)
    raw = texts.buffers()[2].slice(int(bounds[0]), int(bounds[-1] - bounds[0])).to_pybytes()
    # No separator reaches across two texts, for it has none of the brackets at their ends.
    separators = raw.count(SEPARATOR.encode())
    integers = separators + len(texts)
    spelled = separators * len(SEPARATOR) + len(texts) * len(OPENING + CLOSING)
    return _are_integers(np.frombuffer(raw, np.uint8), integers, len(raw) - spelled)


def entry_counts(texts: pa.StringArray) -> pa.Int64Array:
    """int64 [n]: entries of each canonical text; null for null."""
    separators = pc.count_substring(texts, SEPARATOR)
    return pc.if_else(pc.equal(texts, "[]"), 0, pc.add(separators, 1)).cast(pa.int64())


def text_bounds(array: pa.StringArray | pa.ListArray) -> NDArray[np.int32]:
    """Where each text or list starts in the bytes or values, and the last ends: int32 [n + 1]."""
    offsets = np.frombuffer(array.buffers()[1], np.int32)
    return offsets[array.offset : array.offset + len(array) + 1]


def _are_integers(characters: NDArray[np.uint8], integers: int, digits: int) -> bool:
    """Whether so many characters are digits and form so many integers without a leading zero.

    Masks are packed to one bit a character, so that runs are a matter of few words.
    """
    value = characters - np.uint8(ord("0"))
    is_digit = value < 10
    if _has_long_run(is_digit):
        return False
    digit = _Bits(is_digit)
    first = digit.words & ~digit.before
    if int(np.bitwise_count(digit.words).sum()) != digits:
        return False
    if int(np.bitwise_count(first).sum()) != integers:
        return False
    leading_zero = _Bits(value == 0).words & first & digit.after
    return not leading_zero.any()


def _has_long_run(mask: NDArray[np.bool_]) -> bool:
    """True where a run of 19 or more is; False where all runs are shorter than 16."""
    for start in (0, _WORD // 2):
        # 19 in a row fill two neighbouring words, of these or of those half a word further on.
        count = max(0, len(mask) - start) // _WORD
        full = np.frombuffer(mask, np.uint64, count, start) == _ALL_TRUE
        if (full[1:] & full[:-1]).any():
            return True
    return False


class _Bits:
    """A mask packed to uint64 words, lowest bit first, and the same moved by one place."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        packed = np.packbits(mask, bitorder="little")
        padded = np.zeros(-(-len(packed) // _WORD) * _WORD, np.uint8)
        padded[: len(packed)] = packed
        self.words = padded.view("<u8")

    @property
    def before(self) -> NDArray[np.uint64]:
        """At each place, the bit of the place before."""
        moved = self.words << np.uint64(1)
        moved[1:] |= self.words[:-1] >> np.uint64(63)
        return moved

    @property
    def after(self) -> NDArray[np.uint64]:
        """At each place, the bit of the place after."""
        moved = self.words >> np.uint64(1)
        moved[:-1] |= self.words[1:] << np.uint64(63)
        return moved
