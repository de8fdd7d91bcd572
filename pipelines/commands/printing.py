"""Values as a terminal, JSON and CSV can show them; some of them are from strangers."""

import math
from datetime import date
from decimal import Decimal

from rich.text import Text

CELL = 66
"""Most characters of a value; a hash fits."""


def readable(text: str) -> str:
    """A text of several lines without what steers a terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def cell(value: object, most: int = CELL) -> Text:
    """A value as text that can neither style nor steer the terminal."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return Text(text if len(text) <= most else f"{text[:most]}…")


def plain(value: object) -> object:
    """A value that JSON and CSV can say: bytes as hex digits, NaN and infinities as text."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case Decimal():  # DuckDB's sums of whole numbers are 128 bits wide
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return value.hex()
        case date():
            return value.isoformat()
        case dict():
            return {name: plain(part) for name, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
        case _:
            return str(value)
