"""A round of drand, and the proof that it is one: the signers' BLS signature of its number.

The network takes what a relay says (grail-protocol §2); Windrow takes what the signature proves.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pyblst import BlstP1Element, BlstP2Element, final_verify, miller_loop

from windrow import WindrowError
from windrow.networks.grail.windows import QUICKNET, DrandChain

SCHEME: Final = "bls-unchained-g1-rfc9380"
DOMAIN: Final = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
SIGNATURE_BYTES: Final = 48
MAX_ANSWER_BYTES: Final = 4096
"""A relay's answer has about 300."""

_HEX: Final = re.compile(r"(?:[0-9a-f]{2}){1,1024}")
# The standard generator of G2, compressed.
_G2: Final = bytes.fromhex(
    "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
    "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)


class FalseRound(WindrowError):
    """What a relay or a recording says is no round of the chain."""


class MalformedRound(FalseRound):
    """It does not even have the form of a round."""


class WrongRound(FalseRound):
    """It is another round than the one asked for."""


class WrongChain(FalseRound):
    """It is a round of a chain that signs in another way."""


class WrongSignature(FalseRound):
    """The chain's signers did not sign this round, or its randomness is not their signature's."""


@dataclass(frozen=True)
class DrandRound:
    """A round whose signature holds. randomness: 64 hex digits, the SHA-256 of the signature."""

    number: int
    randomness: str
    signature: str


def read_round(content: bytes, number: int, chain: DrandChain = QUICKNET) -> DrandRound:
    """Round `number` from a relay's JSON answer. Raises a subclass of FalseRound."""
    try:
        document = json.loads(content[: MAX_ANSWER_BYTES + 1])
    except (ValueError, RecursionError) as error:
        raise MalformedRound(f"the answer is no JSON: {error}") from None
    found = parse_round(document)
    if found.number != number:
        raise WrongRound(f"round {found.number} was sent instead of round {number}")
    verify_round(found, chain)
    return found


def parse_round(document: Any) -> DrandRound:
    """A round as relays and recordings write it, not verified yet. Raises MalformedRound."""
    match document:
        case {"round": int(number), "randomness": str(randomness), "signature": str(signature)}:
            pass
        case _:
            raise MalformedRound("a round needs `round`, `randomness` and `signature`")
    if isinstance(number, bool) or not 1 <= number < 2**63:
        raise MalformedRound("`round` must be 1 or more")
    if not _HEX.fullmatch(signature) or not _HEX.fullmatch(randomness):
        raise MalformedRound("`randomness` and `signature` must be lower-case hex")
    return DrandRound(number, randomness, signature)


def verify_round(found: DrandRound, chain: DrandChain = QUICKNET) -> None:
    """Raises WrongChain or WrongSignature unless the chain's signers signed this round.

    About 1.4 ms. The signature is a point in G1, the key in G2; both are checked to lie in their
    groups.
    """
    signature = bytes.fromhex(found.signature)
    if len(signature) != SIGNATURE_BYTES:
        raise WrongChain(
            f"a signature has {len(signature)} bytes where {chain.name} has {SIGNATURE_BYTES}: it "
            "is a round of another chain"
        )
    if hashlib.sha256(signature).hexdigest() != found.randomness:
        raise WrongSignature(
            f"the randomness of round {found.number} is not the SHA-256 of its signature"
        )
    message = hashlib.sha256(found.number.to_bytes(8, "big")).digest()
    try:
        point = BlstP1Element().uncompress(signature)
    except ValueError:
        raise WrongSignature(f"the signature of round {found.number} is no point of G1") from None
    hashed = BlstP1Element().hash_to_group(message, DOMAIN)
    left, right = miller_loop(point, _point(_G2)), miller_loop(hashed, _key(chain))
    if not final_verify(left, right):
        raise WrongSignature(f"the signers of {chain.name} did not sign round {found.number}")


@lru_cache(maxsize=8)
def _point(compressed: bytes) -> Any:
    return BlstP2Element().uncompress(compressed)


def _key(chain: DrandChain) -> Any:
    if chain.public_key is None:
        raise WrongChain(f"no public key of {chain.name} is known; rounds of it are not verified")
    return _point(bytes.fromhex(chain.public_key))
