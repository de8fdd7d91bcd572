"""Signed requests of users: over HTTP and through the facilitator (§3.3)."""

import base64
import binascii
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from windrow import WindrowError
from windrow.networks.compute_horde.classes import ClassName
from windrow.networks.compute_horde.signing import Sign
from windrow.networks.compute_horde.volumes import (
    AnyUpload,
    AnyVolume,
    MultiUpload,
    MultiVolume,
    Upload,
    Volume,
)
from windrow.networks.signatures import verify_signature

SCOPES: Final = ("SignedFields", "FullRequest")
KIND: Final = "bittensor"
SIGNATURE_BYTES: Final = 64
MAX_AGE_SECONDS: Final = 60.0
MAX_AHEAD_SECONDS: Final = 5.0

_HEADERS: Final = {
    "signature_type": "X-CH-Signature-Type",
    "signatory": "X-CH-Signatory",
    "timestamp_ns": "X-CH-Timestamp-NS",
    "signature": "X-CH-Signature",
}
_SCOPE_HEADER: Final = "X-CH-Signature-Scope"


class NoSignature(WindrowError):
    """A request whose headers hold no signature."""


class InvalidSignature(WindrowError):
    """A signature that is not its signatory's over the payload."""


class SignatureTooOld(WindrowError):
    """A signature made before the time its reader asks for."""


@dataclass(frozen=True)
class RequestSignature:
    """signatory: SS58 address. timestamp_ns: unix nanoseconds. signature: base64."""

    signature_type: str
    signatory: str
    timestamp_ns: int
    signature: str
    signature_scope: str = SCOPES[0]


def digest(timestamp_ns: int, payload: object) -> bytes:
    """The 64 bytes that are signed. Raises InvalidSignature for a time that fits no 8 bytes."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload, sort_keys=True).encode()
    try:
        stamp = timestamp_ns.to_bytes(8, "big")
    except OverflowError:
        raise InvalidSignature(f"{str(timestamp_ns)[:40]} ns is no time") from None
    return hashlib.blake2b(stamp + data, digest_size=64).digest()


def signed_request(
    sign: Sign, signatory: str, timestamp_ns: int, payload: object, scope: str = SCOPES[0]
) -> RequestSignature:
    """A payload's signature."""
    signature = base64.b64encode(sign(digest(timestamp_ns, payload))).decode()
    return RequestSignature(KIND, signatory, timestamp_ns, signature, scope)


def verify(signature: RequestSignature, payload: object, newer_than: float | None = None) -> None:
    """Hold a signature against its payload. newer_than: unix seconds.

    Raises SignatureTooOld and InvalidSignature.
    """
    if newer_than is not None and signature.timestamp_ns < newer_than * 1e9:
        raise SignatureTooOld(f"signed {newer_than - signature.timestamp_ns / 1e9:.3f} s too early")
    try:
        made = base64.b64decode(signature.signature, validate=True)
    except (binascii.Error, ValueError):
        made = b""
    if (
        signature.signature_type != KIND
        or len(made) != SIGNATURE_BYTES
        or not verify_signature(
            signature.signatory, digest(signature.timestamp_ns, payload), made.hex()
        )
    ):
        raise InvalidSignature(f"not {signature.signatory[:60]}'s signature of this payload")


def strict_problem(
    signature: RequestSignature,
    payload: object,
    *,
    callers: Collection[str],
    now: float,
    seen: Collection[str],
) -> str:
    """Why a request is not taken; empty if it is.

    Unlike the network's, a signature is of the whole request, of now, of a caller who is known,
    and taken once. now: unix seconds; seen: signatures taken within MAX_AGE_SECONDS.
    """
    at = signature.timestamp_ns / 1e9
    if signature.signatory not in callers:
        return f"{signature.signatory[:60]} may not call"
    if signature.signature_scope != "FullRequest":
        return "only a part of the request is signed"
    if not now - MAX_AGE_SECONDS <= at <= now + MAX_AHEAD_SECONDS:
        return f"it was signed {now - at:.0f} s ago by the signer's clock"
    if signature.signature in seen:
        return "it was taken before"
    try:
        verify(signature, payload)
    except InvalidSignature as error:
        return str(error)
    return ""


def signature_in(headers: Mapping[str, str]) -> RequestSignature:
    """The signature a request's headers hold. Raises NoSignature."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        fields = {field: lower[name.lower()] for field, name in _HEADERS.items()}
        stamp = int(fields.pop("timestamp_ns"))
    except KeyError as error:
        raise NoSignature(f"header {error} is missing") from None
    except ValueError:
        raise NoSignature(f"{_HEADERS['timestamp_ns']} is no number") from None
    scope = lower.get(_SCOPE_HEADER.lower(), SCOPES[0])
    if scope not in SCOPES:
        raise NoSignature(f"{scope[:40]!r} is no scope; there are {', '.join(SCOPES)}")
    return RequestSignature(timestamp_ns=stamp, signature_scope=scope, **fields)


def headers_of(signature: RequestSignature) -> dict[str, str]:
    """The headers that carry a signature."""
    values = {header: str(getattr(signature, field)) for field, header in _HEADERS.items()}
    return values | {_SCOPE_HEADER: signature.signature_scope}


def http_payload(method: str, url: str, body: object) -> dict[str, Any]:
    """What the signature of an HTTP request is over: scheme and host do not count."""
    parts = urlsplit(url)._replace(scheme="", netloc="")
    return {"action": f"{method.upper()} {parts.geturl()}", "json": body}


class StreamingDetails(BaseModel):
    """public_key: the user's, PEM. executor_ip: filled in by the miner."""

    model_config = ConfigDict(frozen=True)

    public_key: str
    executor_ip: str | None = None


class JobRequest(BaseModel):
    """A user's job as the facilitator hands it to a validator (§3.2). Limits in seconds."""

    model_config = ConfigDict(frozen=True)

    uuid: str
    job_namespace: str | None = None
    executor_class: ClassName
    docker_image: str
    args: list[str]
    env: dict[str, str]
    use_gpu: bool = True
    volume: Volume | None = None
    output_upload: Upload | None = None
    artifacts_dir: str | None = None
    on_trusted_miner: bool = False
    download_time_limit: int
    execution_time_limit: int
    upload_time_limit: int
    streaming_start_time_limit: int
    streaming_details: StreamingDetails | None = None


class _SignedFields(BaseModel):
    executor_class: str
    docker_image: str
    args: list[str]
    env: dict[str, str]
    use_gpu: bool
    artifacts_dir: str
    on_trusted_miner: bool
    download_time_limit: int
    execution_time_limit: int
    upload_time_limit: int
    streaming_start_time_limit: int
    streaming_details: StreamingDetails | None
    volumes: list[AnyVolume]
    uploads: list[AnyUpload]


def network_signed_fields(request: JobRequest) -> str:
    """The text whose signature a job request carries: compact JSON, in this order.

    Job id, namespace and where the system's output goes are not in it (§3.3).
    """
    volume, upload = request.volume, request.output_upload
    fields = _SignedFields(
        **{
            name: getattr(request, name)
            for name in _SignedFields.model_fields
            if name in JobRequest.model_fields and name != "artifacts_dir"
        },
        artifacts_dir=request.artifacts_dir or "",
        volumes=_parts(volume, volume.volumes if isinstance(volume, MultiVolume) else None),
        uploads=_parts(upload, upload.uploads if isinstance(upload, MultiUpload) else None),
    )
    return fields.model_dump_json()


def strict_signed_fields(request: JobRequest) -> str:
    """A text that leaves nothing of the request out."""
    return json.dumps(request.model_dump(mode="json"), sort_keys=True)


def _parts(whole: Any, parts: Any) -> list[Any]:
    if whole is None:
        return []
    return [whole] if parts is None else list(parts)
