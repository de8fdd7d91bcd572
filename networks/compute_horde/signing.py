"""Signatures as ComputeHorde writes them: `0x` and 128 hex digits, over UTF-8 text (§3.1)."""

import re
from collections.abc import Callable

from bittensor_core import Keypair

from windrow import WindrowError
from windrow.networks.signatures import verify_signature

Sign = Callable[[bytes], bytes]

_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{128}")


class MalformedSignature(WindrowError):
    """Where the network raises an exception instead of saying no."""


def written(signature: bytes) -> str:
    """A signature's 64 bytes as text."""
    return f"0x{signature.hex()}"


def signed_by(hotkey: str, text: str, signature: str) -> bool:
    """Whether a signature is a hotkey's over a text; never raises."""
    try:
        return bytes_signed_by(hotkey, text.encode(), signature)
    except UnicodeEncodeError:
        return False


def bytes_signed_by(hotkey: str, message: bytes, signature: str) -> bool:
    """Whether a signature is a hotkey's over a message; never raises."""
    if not _SIGNATURE.fullmatch(signature):
        return False
    return verify_signature(hotkey, message, signature[2:])


def network_signed_by(hotkey: str, text: str, signature: str) -> bool:
    """The same. Raises MalformedSignature for what the network does not catch (§14.9)."""
    if not _SIGNATURE.fullmatch(signature) or not is_address(hotkey):
        raise MalformedSignature(
            f"signature {signature[:12]!r} of {hotkey[:60]!r} is not 64 bytes in hex, or the "
            "signer no address; the network stops at it"
        )
    return signed_by(hotkey, text, signature)


def is_address(hotkey: str) -> bool:
    """Whether a text is an SS58 address."""
    try:
        Keypair(ss58_address=hotkey)
    except ValueError:
        return False
    return True
