"""sr25519 signatures, which all the networks of Bittensor share."""

from bittensor_core import Keypair


def is_hotkey(text: str) -> bool:
    """Whether a text is an SS58 address of these networks: format 42, with its checksum."""
    if len(text) != 48 or not text.startswith("5"):
        return False
    try:
        Keypair(ss58_address=text)
    except ValueError:
        return False
    return True


def verify_signature(hotkey: str, message: bytes, signature: str) -> bool:
    """Whether the hex text is ``hotkey``'s sr25519 signature of a message; never raises.

    hotkey: SS58 address. signature: 64 bytes as hex, spaces allowed, ``0x`` not. A signature over
    ``<Bytes>message</Bytes>``, as wallets make them, also passes (grail-protocol §5.2).
    """
    try:
        return bool(Keypair(ss58_address=hotkey).verify(message, bytes.fromhex(signature)))
    except ValueError:  # not hex, not 64 bytes or no SS58 address
        return False
