"""The pseudo-random function and what is drawn from it (grail-protocol §2, §3.1, §3.2, §3.4)."""

import hashlib
import random
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.networks.grail.constants import (
    CHALLENGE_POSITIONS,
    COEFFICIENT_RANGE,
    SKETCH_TOP_K,
)
from windrow.networks.grail.tokens import Tokens, token_hash

SEPARATOR: Final = b"||"
MAX_OUTPUT_BYTES: Final = 65536
MAX_POSITION: Final = 2**31 - 1


class MalformedRandomness(WindrowError):
    """A randomness string is not hexadecimal."""


class OutputTooLong(WindrowError):
    """More bytes are asked of the PRF than it gives."""


class InvalidChallenge(WindrowError):
    """No challenge can be drawn: an empty sequence, an impossible range or no randomness."""


def normalise_hex(text: str) -> bytes:
    """The bytes of a randomness string, as every consumer of one reads it (§2).

    Surrounding whitespace and every ``0x`` go; an odd length gets a leading zero.
    Raises MalformedRandomness.
    """
    digits = text.strip().replace("0x", "").replace("0X", "")
    try:
        return bytes.fromhex("0" * (len(digits) % 2) + digits)
    except ValueError as error:
        raise MalformedRandomness(f"randomness {text!r:.80} is not hexadecimal") from error


def prf(label: bytes, parts: Sequence[bytes], size: int) -> bytes:
    """``size`` bytes of SHAKE-256 over the label and the parts (§3.1).

    Not injective: a part may hold the separator. Raises OutputTooLong for a size outside 0..65536.
    """
    if not 0 <= size <= MAX_OUTPUT_BYTES:
        raise OutputTooLong(f"PRF output of {size} bytes; ask for 0..{MAX_OUTPUT_BYTES}")
    return hashlib.shake_256(label + SEPARATOR + SEPARATOR.join(parts)).digest(size)


def sketch_coefficients(randomness: str, count: int = SKETCH_TOP_K) -> NDArray[np.int8]:
    """The window's sketch coefficients, int8 [count] in -127..127 (§3.2).

    randomness: R_m as hex; the empty string is allowed. Raises MalformedRandomness.
    """
    raw = prf(b"sketch", [normalise_hex(randomness)], 2 * count)
    # |-32768| wraps to itself in int16, and the floored remainder then turns it into 0.
    magnitudes = np.abs(np.frombuffer(raw, dtype=">i2").astype(np.int16))
    coefficients = magnitudes % (2 * COEFFICIENT_RANGE + 1) - COEFFICIENT_RANGE
    return coefficients.astype(np.int8)


def open_indices(
    tokens: Tokens,
    prompt_length: int,
    completion_length: int,
    randomness: str,
    k: int = CHALLENGE_POSITIONS,
) -> list[int]:
    """The challenged positions of a rollout: sorted, absolute, at most ``k`` (§3.4).

    tokens: the full sequence. randomness: R_v as hex. A completion shorter than ``k`` is opened
    whole. Raises InvalidChallenge, MalformedRandomness or MalformedTokens.
    """
    material = _challenge_seed(tokens, randomness)
    end = prompt_length + completion_length
    if prompt_length < 0 or completion_length < 0 or end > MAX_POSITION or k <= 0:
        raise InvalidChallenge(
            f"cannot open {k} of the positions {prompt_length}..{end}; "
            "lengths must not be negative and k must be positive"
        )
    size = min(k, completion_length)
    # The generator is CPython's own: positions must equal those every other verifier draws.
    rng = random.Random(material)  # noqa: S311 - not for secrecy; the protocol names it
    if size < completion_length * 0.1:
        chosen = rng.sample(range(completion_length), size)
    else:
        shuffled = list(range(completion_length))
        rng.shuffle(shuffled)
        chosen = shuffled[:size]
    return [prompt_length + index for index in sorted(chosen)]


def _challenge_seed(tokens: Tokens, randomness: str) -> bytes:
    beacon = normalise_hex(randomness)
    if len(tokens) == 0 or not beacon:
        raise InvalidChallenge("cannot open positions of an empty sequence or without randomness")
    return prf(b"open", [token_hash(tokens), beacon], 32)
