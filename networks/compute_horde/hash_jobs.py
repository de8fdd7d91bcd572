"""The hash-cracking job of the 24 GB class (§5.3): solved, for small sizes, and answered.

Three lists of salted digests. All but the first (in version 2 all) are encrypted with a key made
of the passwords before, so they are cracked one after the other. A job tells how fast a machine
hashes, and nothing of its memory.
"""

import base64
import binascii
import hashlib
import itertools
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from windrow import WindrowError

LETTERS: Final = string.ascii_lowercase + string.digits + string.ascii_uppercase
ALGORITHMS: Final = {"1410": "sha256", "10810": "sha384", "1710": "sha512"}
"""By hashcat's number of digests of password and salt, in that order."""
MASK_LETTER: Final = "?1"
MASK_DIGIT: Final = "?d"
MAX_TRIES: Final = 1 << 24
TIMEOUT_SECONDS: Final = 53


class UnsolvableJob(WindrowError):
    """A hash job that is malformed, or too large to solve by trying everything."""


@dataclass(frozen=True)
class Stage:
    """One list. algorithm: hashcat's number. letters, digits: of each password, in this order."""

    payload: str
    algorithm: str
    letters: int
    digits: int

    @property
    def mask(self) -> str:
        """The passwords' form, for hashcat."""
        return MASK_LETTER * self.letters + MASK_DIGIT * self.digits


def solve(stages: Sequence[Stage], first_password: str | None = None) -> list[list[str]]:
    """Passwords of every list, each sorted. first_password: of version 2. Raises UnsolvableJob."""
    known = None if first_password is None else [first_password]
    solved = []
    for stage in stages:
        known = _crack(stage, stage.payload if known is None else _decrypted(stage, known))
        solved.append(known)
    return solved


def answer(passwords: Sequence[Sequence[str]]) -> str:
    """What a container prints: a digest of all passwords in order."""
    joined = "".join(itertools.chain.from_iterable(passwords))
    return base64.urlsafe_b64encode(hashlib.sha256(joined.encode()).digest()).decode()


def is_answer(printed: str, expected: str) -> bool:
    """Whether a container printed it; blanks around it do not count."""
    return printed.strip() == expected


def oldest_arguments(stage: Stage) -> list[str]:
    """Arguments of version 0, in which the container is hashcat itself."""
    return [
        *("--runtime", "600", "--restore-disable", "--attack-mode", "3"),
        *("--workload-profile", "3", "--optimized-kernel-enable"),
        *("--hash-type", stage.algorithm, "--hex-salt", "-1", "?l?d?u"),
        *("--outfile-format", "2", "--quiet", "/volume/payload.txt", stage.mask),
    ]


def arguments(first_password: str | None) -> list[str]:
    """Arguments of versions 1 and 2; the second's first password comes with them."""
    return ["/script.py"] if first_password is None else ["/script.py", first_password]


def _decrypted(stage: Stage, passwords: Sequence[str]) -> str:
    secret = hashlib.sha256("\n".join(passwords).encode()).digest()
    try:
        return Fernet(base64.urlsafe_b64encode(secret)).decrypt(stage.payload).decode()
    except (InvalidToken, UnicodeDecodeError):
        raise UnsolvableJob(
            "a list is not encrypted with the passwords of the one before it"
        ) from None


def _crack(stage: Stage, payload: str) -> list[str]:
    if stage.algorithm not in ALGORITHMS or min(stage.letters, stage.digits) < 0:
        raise UnsolvableJob(f"{stage.algorithm[:20]!r} is no algorithm of {', '.join(ALGORITHMS)}")
    tries = len(LETTERS) ** min(stage.letters, 9) * 10 ** min(stage.digits, 9)
    if tries > MAX_TRIES:
        raise UnsolvableJob(f"{tries} passwords to try; at most {MAX_TRIES} are")
    wanted: dict[bytes, set[bytes]] = {}
    for line in payload.splitlines():
        digest, _, salt = line.partition(":")
        try:
            wanted.setdefault(bytes.fromhex(salt), set()).add(bytes.fromhex(digest))
        except (ValueError, binascii.Error):
            raise UnsolvableJob(f"{line[:80]!r} is no digest and salt") from None
    found = [
        password
        for salt, digests in wanted.items()
        for password in _passwords(stage)
        if hashlib.new(ALGORITHMS[stage.algorithm], password.encode() + salt).digest() in digests
    ]
    if len(found) != sum(map(len, wanted.values())):
        raise UnsolvableJob(f"{len(found)} of {sum(map(len, wanted.values()))} passwords found")
    return sorted(found)


def _passwords(stage: Stage) -> Iterator[str]:
    places = [LETTERS] * stage.letters + [string.digits] * stage.digits
    return map("".join, itertools.product(*places))
