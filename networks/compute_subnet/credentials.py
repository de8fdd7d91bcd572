"""A rental's login, encrypted for the one who asked for it (§3.3)."""

import base64
import binascii

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from windrow import WindrowError

_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
LEAST_KEY_BITS = 2048


class BadCredentials(WindrowError):
    """A login cannot be encrypted or decrypted."""


def wrap(public_key: rsa.RSAPublicKey, login: bytes) -> str:
    """A login as base64, for the holder of the private key. Raises BadCredentials."""
    if public_key.key_size < LEAST_KEY_BITS:
        raise BadCredentials(f"the renter's key has {public_key.key_size} bits, not 2048 or more")
    try:
        return base64.b64encode(public_key.encrypt(login, _OAEP)).decode()
    except ValueError as error:
        raise BadCredentials(f"a login of {len(login)} bytes does not fit the key") from error


def unwrap(private_key: rsa.RSAPrivateKey, wrapped: str) -> bytes:
    """The login in what `wrap` gave. Raises BadCredentials."""
    try:
        return private_key.decrypt(base64.b64decode(wrapped, validate=True), _OAEP)
    except (ValueError, InvalidKey, binascii.Error) as error:
        raise BadCredentials("the login was encrypted for another key, or is damaged") from error
