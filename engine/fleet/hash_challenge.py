"""compute-subnet's hash challenge: set, solved on the node, judged by the asker's clock (§5).

It shows that something hashes fast and was not asked before. It names no GPU: with a short
password a processor is as good, which the verdict says.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from windrow import WindrowError
from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.frames import BadFrame, from_json, to_json
from windrow.engine.fleet.tasks import BadRequest
from windrow.networks.compute_subnet.hash_challenge import (
    ALPHABET,
    CHARACTERS,
    HashChallenge,
    challenge_of,
    solves,
    strict_answer,
)

NETWORK: Final = "compute-subnet"
SECONDS: Final = 30.0
"""Time the network gives (compute-subnet §2)."""
MAX_ANSWER: Final = 4096
MAX_LENGTH: Final = 12
PROCESSOR_LIMIT: Final = 20_000_000
"""Passwords a node without hashcat tries at most: about half a minute of one processor."""
PROCESSOR_RATE: Final = 5e7
"""Hashes per second that a machine full of processors reaches without any GPU."""


class Unsolved(WindrowError):
    """A node cannot solve a challenge."""


def challenge(length: int, draw: Callable[[int], int]) -> tuple[HashChallenge, str]:
    """A challenge and its password. draw(n): an integer below n, from secure randomness.

    Characters and salt are fresh each time, so no answer can be prepared.
    """
    letters = list(ALPHABET)
    chars = "".join(letters.pop(draw(len(letters))) for _ in range(CHARACTERS))
    password = "".join(chars[draw(CHARACTERS)] for _ in range(length))
    salt = bytes(draw(256) for _ in range(8))
    return challenge_of(password, salt, chars), password


def request(asked: HashChallenge) -> bytes:
    """The challenge as a node is given it."""
    return to_json(
        {
            "hash": asked.hash,
            "salt": asked.salt,
            "mode": asked.mode,
            "chars": asked.chars,
            "length": asked.length,
        }
    )


def answer(data: bytes) -> bytes:
    """Solve a challenge, on the node: by hashcat where it is, else by trying. Raises Unsolved."""
    asked = _challenge(data)
    hashcat = shutil.which("hashcat")
    password = _by_hashcat(hashcat, asked) if hashcat else _by_trying(asked)
    if password is None:
        raise Unsolved("no password of the challenge's characters has this hash")
    return to_json({"password": password, "by": "hashcat" if hashcat else "processor"})


def verify(asked: HashChallenge, data: bytes, seconds: float) -> list[NodeCheck]:
    """What an answer that took so many seconds shows. Never raises for a bad answer."""
    try:
        password = from_json(data, max_bytes=MAX_ANSWER).get("password")
        solved = isinstance(password, str) and solves(password, asked)
        reason = "" if solved else "the answer is not the password"
    except (BadFrame, UnicodeError) as error:
        solved, reason = False, f"the answer cannot be read: {error}"
    in_time = solved and seconds <= SECONDS
    late = f"solved after {seconds:.1f} s; the network waits {SECONDS:.0f}"
    needed = asked.candidates / 2 / SECONDS
    shows = in_time and needed > PROCESSOR_RATE
    weak = (
        f"{asked.candidates:.0e} passwords in {SECONDS:.0f} s need {needed:.1e} hashes a second, "
        "which processors alone reach: this shows no GPU"
    )
    return [
        NodeCheck(
            "hash_solved",
            NETWORK,
            in_time,
            in_time,
            measured=seconds,
            needed=SECONDS,
            unit="s",
            reason=reason or ("" if in_time else late),
            remedy="" if in_time else "install hashcat and its drivers; see `hashcat -b -m 610`",
        ),
        NodeCheck(
            "hash_shows_gpu",
            WINDROW,
            None,
            shows if solved else None,
            measured=asked.candidates / 2 / max(seconds, 1e-9) if solved else None,
            needed=PROCESSOR_RATE,
            unit="hashes/s",
            reason="" if shows else (reason or weak),
            remedy="" if shows else "ask for a longer password, or trust the attestation instead",
        ),
    ]


def _challenge(data: bytes) -> HashChallenge:
    try:
        fields: dict[str, Any] = from_json(data, max_bytes=MAX_ANSWER)
    except BadFrame as error:
        raise BadRequest(f"no hash challenge: {error}") from error
    texts = [fields.get(name) for name in ("hash", "salt", "mode", "chars")]
    length = fields.get("length")
    if (
        not all(isinstance(text, str) and len(text) <= 200 for text in texts)
        or type(length) is not int
        or not 1 <= length <= MAX_LENGTH
        or not fields["chars"]
    ):
        raise BadRequest(f"no hash challenge of at most {MAX_LENGTH} characters")
    return HashChallenge(fields["hash"], fields["salt"], fields["mode"], fields["chars"], length)


def _by_trying(asked: HashChallenge) -> str | None:
    if asked.candidates > PROCESSOR_LIMIT:
        raise Unsolved(
            f"{asked.candidates} passwords are too many for a processor; install hashcat"
        )
    from itertools import product

    for letters in product(asked.chars, repeat=asked.length):
        password = "".join(letters)
        if solves(password, asked):
            return password
    return None


def _by_hashcat(program: str, asked: HashChallenge) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "hash")
        target.write_text(f"{asked.hash}:{asked.salt}\n")
        try:
            done = subprocess.run(
                [
                    *(program, "--attack-mode", "3", "--hash-type", asked.mode, "-O", "-w", "3"),
                    *("--potfile-disable", "--session", Path(folder).name, "--quiet"),
                    *("--custom-charset1", asked.chars.replace("?", "??")),
                    *(str(target), asked.mask),
                ],
                capture_output=True,
                text=True,
                timeout=4 * SECONDS,
                check=False,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return None
        return strict_answer(done.stdout, asked)
