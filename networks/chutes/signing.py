"""Signed requests in Chutes' header scheme: how they are built, and who believes them (§5).

The network's verifiers keep no nonces and bind a signature to neither method nor path, so a
request that was overheard can be sent again. `strict_problem` closes that for our own services.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from windrow import WindrowError
from windrow.networks.signatures import verify_signature

HOTKEY: Final = "X-Chutes-Hotkey"
MINER: Final = "X-Chutes-Miner"
VALIDATOR: Final = "X-Chutes-Validator"
NONCE: Final = "X-Chutes-Nonce"
SIGNATURE: Final = "X-Chutes-Signature"

MINER_SECONDS: Final = 30
VALIDATOR_SECONDS: Final = 600

Sign = Callable[[bytes], bytes]


class NothingToSign(WindrowError):
    """A request has neither a body nor a purpose."""


@dataclass(frozen=True)
class SignedRequest:
    """headers: every one to send. body: the exact bytes, None without one."""

    headers: Mapping[str, str]
    body: bytes | None


def compact_json(payload: object) -> bytes:
    """JSON as the API and its planner write it: no blanks, text unescaped."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def spaced_json(payload: object) -> bytes:
    """JSON as the command line writes it: with blanks, and escapes for what is not ASCII."""
    return json.dumps(payload).encode()


def body_hash(body: bytes) -> str:
    """SHA-256 of the exact body, lower-case hex."""
    return hashlib.sha256(body).hexdigest()


def to_validator(
    sign: Sign,
    miner: str,
    nonce: int,
    *,
    payload: Any = None,
    purpose: str | None = None,
    encode: Callable[[object], bytes] = compact_json,
) -> SignedRequest:
    """A miner's request to a validator. Raises NothingToSign."""
    body, tail, kind = _body(payload, purpose, encode)
    headers = {HOTKEY: miner, NONCE: str(nonce)} | kind
    return _signed(sign, headers, f"{miner}:{nonce}:{tail}", body)


def to_miner(
    sign: Sign,
    miner: str,
    signer: str,
    nonce: int,
    *,
    payload: Any = None,
    purpose: str | None = None,
    encode: Callable[[object], bytes] = compact_json,
    plain_types: bool = False,
) -> SignedRequest:
    """A request to a miner's service; signer: a validator, or the miner for management.

    plain_types: name the type of a body that is no JSON, as validators do. Raises NothingToSign.
    """
    body, tail, kind = _body(payload, purpose, encode)
    if plain_types and isinstance(payload, str):
        kind = {"Content-Type": "text/plain; charset=utf-8"}
    elif plain_types and isinstance(payload, bytes):
        kind = {"Content-Type": "application/octet-stream"}
    headers = {MINER: miner, VALIDATOR: signer, NONCE: str(nonce)} | kind
    return _signed(sign, headers, f"{miner}:{signer}:{nonce}:{tail}", body)


def _body(
    payload: Any, purpose: str | None, encode: Callable[[object], bytes]
) -> tuple[bytes | None, str, dict[str, str]]:
    if payload is None:
        if not purpose:
            raise NothingToSign("a request needs a payload, or a purpose that is signed instead")
        return None, purpose, {}
    kind = {}
    if isinstance(payload, dict | list):
        body = encode(payload)
        kind = {"Content-Type": "application/json"}
    elif isinstance(payload, str | bytes):
        body = payload.encode() if isinstance(payload, str) else payload
    else:
        raise TypeError(f"a payload is an object, a list, a text or bytes, not {payload!r:.60}")
    if not body:
        raise NothingToSign("a request's payload is empty; leave it out and sign a purpose")
    return body, body_hash(body), kind


def _signed(sign: Sign, headers: dict[str, str], text: str, body: bytes | None) -> SignedRequest:
    return SignedRequest(headers | {SIGNATURE: sign(text.encode()).hex()}, body)


def network_miner_accepts(
    headers: Mapping[str, str],
    *,
    miner: str,
    signers: Collection[str],
    method: str,
    purpose: str | None,
    body: bytes | None,
    clock: float,
) -> bool:
    """Whether a miner's service of the network takes a request; any nonce ahead will do (§5)."""
    named, signer = headers.get(MINER), headers.get(VALIDATOR)
    nonce, signature = headers.get(NONCE), headers.get(SIGNATURE)
    if not nonce or not signature or named != miner or signer is None or signer not in signers:
        return False
    if not nonce.isascii() or not nonce.isdigit() or len(nonce) > 15:
        return False
    if math.floor(clock) - int(nonce) >= MINER_SECONDS:
        return False
    tail = body_hash(body or b"") if method in {"POST", "PUT", "PATCH"} else purpose
    if not tail:
        return False
    return verify_signature(signer, f"{miner}:{signer}:{nonce}:{tail}".encode(), signature)


def network_validator_accepts(
    headers: Mapping[str, str],
    *,
    purpose: str | None,
    body: bytes | None,
    clock: float,
    registered: bool,
) -> bool:
    """Whether a validator of the network takes a request (§5).

    body: None without one; an empty body has a hash, as any other.
    registered: whether the endpoint is content with the hotkey's registration. A request without
    hotkey or signature passes as anonymous where an endpoint tolerates that, as these do.
    """
    hotkey, signature = headers.get(HOTKEY), headers.get(SIGNATURE)
    if not hotkey or not signature:
        return True
    nonce = headers.get(NONCE, "")
    if not nonce.isascii() or not nonce.isdigit() or len(nonce) > 15:
        return False
    if not abs(clock - int(nonce)) < VALIDATOR_SECONDS:
        return False
    tail = purpose or (None if body is None else body_hash(body))
    if tail is None:
        return False
    return registered and verify_signature(hotkey, f"{hotkey}:{nonce}:{tail}".encode(), signature)


def strict_tail(method: str, path: str, body: bytes) -> str:
    """What our own services have signed: method, path with query, and the body's hash."""
    return f"{method.upper()} {path} {body_hash(body)}"


def to_agent(
    sign: Sign, miner: str, signer: str, nonce: int, *, method: str, path: str, body: bytes
) -> SignedRequest:
    """A request to one of our own services: Chutes' headers, bound to what is asked."""
    text = f"{miner}:{signer}:{nonce}:{strict_tail(method, path, body)}"
    return _signed(sign, {MINER: miner, VALIDATOR: signer, NONCE: str(nonce)}, text, body)


def strict_problem(
    headers: Mapping[str, str],
    *,
    miner: str,
    signers: Collection[str],
    method: str,
    path: str,
    body: bytes,
    clock: float,
) -> str | None:
    """Why one of our own services refuses a request, or None.

    Beyond the network's: no caller list means nobody, nonces ahead are bounded like those behind,
    and the signature covers method, path and body. That a signature is used once is for the
    caller to see to: it is valid for MINER_SECONDS either way.
    """
    named, signer = headers.get(MINER), headers.get(VALIDATOR)
    nonce, signature = headers.get(NONCE, ""), headers.get(SIGNATURE, "")
    if named != miner:
        return "the request is for another node"
    if signer is None or signer not in signers:
        return "the caller is not on this node's list"
    if not nonce.isascii() or not nonce.isdigit() or len(nonce) > 15:
        return "the nonce is not a number of seconds"
    if not abs(clock - int(nonce)) < MINER_SECONDS:
        return f"the nonce is {clock - int(nonce):.0f} s from this node's clock, not within 30"
    text = f"{miner}:{signer}:{nonce}:{strict_tail(method, path, body)}"
    if not verify_signature(signer, text.encode(), signature):
        return "the signature is not the caller's over this request"
    return None
