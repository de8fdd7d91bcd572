"""The hash challenge: find a short password from its salted hash (§5)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from windrow import WindrowError

SHA256_MODE: Final = "1410"
BLAKE2B_MODE: Final = "610"
BLAKE2B_PREFIX: Final = "$BLAKE2$"
CHARACTERS: Final = 10
"""Characters a password is drawn from, of the alphabet shuffled."""
ALPHABET: Final = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!@#$%^&*()-_+=[]{};:,.<>"
)


class InvalidChallenge(WindrowError):
    """A hash challenge that nobody can work on."""


@dataclass(frozen=True)
class HashChallenge:
    """What a miner is given. salt: text, used as it is. chars: every character a password has."""

    hash: str
    salt: str
    mode: str
    chars: str
    length: int

    @property
    def mask(self) -> str:
        """The mask hashcat is given: custom charset 1 at every position."""
        return "?1" * self.length

    @property
    def candidates(self) -> int:
        """Passwords there are."""
        return int(len(self.chars) ** self.length)


def salted_hash(password: str, salt: str, mode: str) -> str:
    """The hash of a password and its salt, as text (§5). Raises InvalidChallenge."""
    data = (password + salt).encode()
    match mode:
        case "1410":
            return hashlib.sha256(data).hexdigest()
        case "610":
            return BLAKE2B_PREFIX + hashlib.blake2b(data).hexdigest()
        case _:
            raise InvalidChallenge(f"hash mode {mode[:16]!r} is not 610 or 1410")


def challenge_of(password: str, salt: bytes, chars: str, mode: str = BLAKE2B_MODE) -> HashChallenge:
    """The challenge of a password. chars: must hold every character of it."""
    if not password or not set(password) <= set(chars):
        raise InvalidChallenge("a password is made of the challenge's characters, one at least")
    text = salt.hex()
    return HashChallenge(salted_hash(password, text, mode), text, mode, chars, len(password))


def solves(password: str, challenge: HashChallenge) -> bool:
    """Whether a password is the one, and of the length and characters asked for."""
    return (
        len(password) == challenge.length
        and set(password) <= set(challenge.chars)
        and salted_hash(password, challenge.salt, challenge.mode) == challenge.hash
    )


def network_answer(hashcat_output: str, challenge: HashChallenge) -> str | None:
    """The password a v1.8 miner reads from hashcat: after the last colon of the hash's line (§5).

    A password with a colon comes out cut.
    """
    for line in hashcat_output.splitlines():
        if challenge.hash in line:
            return line.rpartition(":")[2]
    return None


def strict_answer(hashcat_output: str, challenge: HashChallenge) -> str | None:
    """What follows hash and salt on the hash's line, whatever characters it has."""
    start = f"{challenge.hash}:{challenge.salt}:"
    for line in hashcat_output.splitlines():
        if line.startswith(start):
            return line[len(start) :]
    return None


def password_at(chars: Sequence[str], length: int, number: int) -> str:
    """Password number 0 to len(chars)^length - 1, the last character counting fastest."""
    letters = []
    for _ in range(length):
        number, digit = divmod(number, len(chars))
        letters.append(chars[digit])
    return "".join(reversed(letters))
