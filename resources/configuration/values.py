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

from windrow.networks.signatures import is_hotkey
from windrow.resources.secret import Secret

T = TypeVar("T")

TRUE = frozenset({"yes", "true", "1"})
FALSE = frozenset({"no", "false", "0"})


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
    if not raw or not raw.isprintable() or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", raw):
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


def bucket_url(raw: str) -> str:
    """As bucket, or `s3://NAME` of a bucket with that name."""
    if not raw.startswith("s3://"):
        return bucket(raw)
    return s3_name(raw.removeprefix("s3://").removesuffix("/"))


def s3_name(raw: str) -> str:
    """`s3://NAME` of a bucket's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", raw):
        raise ValueError("give a bucket's name: 2 to 63 of letters, digits, '.', '_' and '-'")
    return f"s3://{raw}"


def account(raw: str) -> str:
    """An R2 account id; a commitment on chain holds 32 characters of it (grail-protocol §8.1)."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?", raw):
        raise ValueError("give the account id: at most 32 letters, digits and '-'")
    return raw


def kubernetes_name(raw: str) -> str:
    """The name of an object of a cluster."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", raw):
        raise ValueError("give a name of a-z, 0-9, '-' and '.', at most 253 of them")
    return raw


def extended_resource(raw: str) -> str:
    """What a device plugin calls its devices: a domain, '/', and a name."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[A-Za-z0-9][\w.-]{0,62}", raw):
        raise ValueError("give a device plugin's resource such as nvidia.com/gpu, or none")
    return raw


def ss58(raw: str) -> str:
    """An SS58 address of the network's form, its checksum right."""
    if not re.fullmatch(r"5[1-9A-HJ-NP-Za-km-z]{47}", raw):
        raise ValueError("give an SS58 address: 48 letters and digits that begin with 5")
    if not is_hotkey(raw):
        raise ValueError("give an SS58 address; the checksum of this one is wrong: copy it again")
    return raw


def monitoring(raw: str) -> str:
    """The miner guide's name of a tracker."""
    return {"wandb": "wandb", "null": "none"}[one_of("wandb", "null")(raw)]


def url(*schemes: str) -> Callable[[str], str]:
    """A URL of one of some schemes, without a user or password."""

    def parse(raw: str) -> str:
        parts = urlsplit(raw)
        known = parts.scheme in schemes and parts.hostname and raw.isprintable()
        if not known or "@" in parts.netloc or " " in raw:
            raise ValueError(f"give a URL such as {schemes[-1]}://host:port, without a password")
        return raw.rstrip("/")

    return parse


def ray(raw: str) -> str:
    """Where a Ray cluster is: `auto`, `HOST:PORT` or `ray://HOST:PORT`."""
    if raw != "auto" and not re.fullmatch(r"(?:ray://)?[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}", raw):
        raise ValueError("give auto, HOST:PORT or ray://HOST:PORT; Ray takes no password")
    return raw


def listener(raw: str) -> str:
    """`http://ADDRESS:PORT` of this machine, as others reach it."""
    try:
        parts = urlsplit(raw)
        known = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:
        known = False
    if not known or not re.fullmatch(r"http://[A-Za-z0-9.-]+:[0-9]{1,5}/?", raw):
        raise ValueError(
            "give a URL such as http://203.0.113.9:8791: http, with the port that is listened on "
            "here; behind a TLS proxy every node would seem to come from the proxy"
        )
    return raw.rstrip("/")


def name(raw: str) -> str:
    """A file name: no folder, nothing hidden."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@ -]{0,63}", raw):
        raise ValueError("give a name of letters, digits, '_', '-', '.', '@' and spaces")
    return raw


def several(parse: Callable[[str], T], most: int = 64) -> Callable[[str], tuple[T, ...]]:
    """Values between commas, none of them twice; nothing for the empty text and for "none"."""

    def parse_all(raw: str) -> tuple[T, ...]:
        parts = () if raw.strip() in ("", "none") else raw.split(",")
        found = tuple(parse(part.strip()) for part in parts)
        if len(found) > most or len(set(found)) < len(found):
            raise ValueError(f"give at most {most} different values, with commas between them")
        return found

    return parse_all


def one_of(*choices: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError(f"choose one of {', '.join(choices)}")
        return raw

    return parse


def yes_or_no(raw: str) -> bool:
    """True for `yes`, `true` or `1`, False for `no`, `false` or `0`, in any case."""
    word = raw.lower()
    if word not in TRUE | FALSE:
        raise ValueError("choose one of no, yes; false, true, 0 and 1 are understood too")
    return word in TRUE


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from least to most."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not least <= int(raw) <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return int(raw)

    return parse


def share(raw: str) -> float:
    """A share of a whole: above 0, below 1."""
    if not re.fullmatch(r"0?\.[0-9]{1,6}", raw) or float(raw) == 0:
        raise ValueError("give a share between 0 and 1 such as 0.9")
    return float(raw)


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
        case tuple():
            return ",".join(map(shown, value)) or "none"
        case _:
            return without_password(str(value))


def without_password(said: str) -> str:
    """A text without the user and password of any URL in it."""
    return re.sub(r"//[^/\s]*@", "//(hidden)@", said)
