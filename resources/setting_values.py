"""How the text of an environment variable becomes a value.

Every function raises ValueError whose message says what is allowed, and never repeats the text.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from windrow.resources.secret import Secret

T = TypeVar("T")


def text(raw: str) -> str:
    """Any printable text of 1 to 256 characters."""
    if not raw or len(raw) > 256 or not raw.isprintable():
        raise ValueError("give 1 to 256 printable characters")
    return raw


def secret(raw: str) -> Secret:
    """Any text that is not empty, hidden from here on."""
    if not raw.strip():
        raise ValueError("it must not be empty")
    return Secret(raw)


def folder(raw: str) -> Path:
    """An absolute path; `~` and paths relative to the working folder are resolved."""
    if not raw or not raw.isprintable():
        raise ValueError("give a path")
    try:
        return Path(raw).expanduser().absolute()
    except RuntimeError:
        raise ValueError("give a path whose ~user exists") from None


def bucket(raw: str) -> str:
    """The absolute path of a bucket folder, from a path or a file:// URL."""
    if "://" not in raw:
        return str(folder(raw))
    url = urlsplit(raw)
    if url.scheme != "file" or url.netloc not in ("", "localhost") or url.query or url.fragment:
        raise ValueError("give a folder or a file:///path URL; other buckets are not supported yet")
    return str(folder(unquote(url.path)))


def one_of(*choices: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError(f"choose one of {', '.join(choices)}")
        return raw

    return parse


def yes_or_no(raw: str) -> bool:
    """True for `yes`, False for `no`."""
    return one_of("no", "yes")(raw) == "yes"


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from least to most."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not least <= int(raw) <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return int(raw)

    return parse


def seconds(raw: str) -> float:
    """A positive number of seconds, at most an hour."""
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not 0.01 <= value <= 3600.0:
        raise ValueError("give a number of seconds from 0.01 to 3600")
    return value


def instant(raw: str) -> datetime:
    """A moment in ISO 8601 with its offset, kept in UTC."""
    try:
        value = datetime.fromisoformat(raw)
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        raise ValueError("give a time such as 2024-01-01T00:00:00Z")
    return value.astimezone(UTC)


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """None for "none", else what parse makes of the text."""
    return lambda raw: None if raw == "none" else parse(raw)


def shown(value: object) -> str:
    """A value as `windrow doctor` prints it."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
