"""What the answers of S3 servers mean: one table from status and code to what a client must do.

Amazon's codes, and those of R2, B2, MinIO, Ceph and Google that mean the same. A code decides; a
status decides where a server, or a proxy before it, sends none.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

MAX_SKEW_SECONDS: Final = 900.0
"""How far a clock may be from the server's (Amazon, R2, MinIO and Ceph agree on 15 minutes)."""

MAX_BODY: Final = 8192
"""Characters of an answer's body that are read."""

_MAX_MESSAGE = 200
_LITTLE_SECONDS = 60.0


class Meaning(StrEnum):
    """What an answer means for the request that it answers."""

    RETRY = "retry"
    """The server is busy, failed, or lost part of the request: send it again after a wait."""
    CONDITION = "condition"
    """The request's own condition does not hold: an object is there, or is another one."""
    MISSING = "missing"
    NO_BUCKET = "no bucket"
    NO_UPLOAD = "no upload"
    """The upload in parts is over or was aborted: look whether its object is there."""
    REFUSED = "refused"
    CREDENTIALS = "credentials"
    CLOCK = "clock"
    PLACE = "place"
    """Another region or endpoint has the bucket."""
    UNSUPPORTED = "unsupported"
    """The server does not implement what was asked."""
    FULL = "full"
    TOO_LARGE = "too large"
    CHANGED = "changed"
    """The object has fewer bytes than the request expects."""
    INVALID = "invalid"
    """The server cannot read the request; sending it again changes nothing."""


REMEDIES: Final[Mapping[Meaning, str]] = MappingProxyType(
    {
        Meaning.RETRY: "Run again later; if it lasts, look at the provider's status page.",
        Meaning.CONDITION: "Read the object again.",
        Meaning.MISSING: "Check the key.",
        Meaning.NO_BUCKET: "Create the bucket, or correct its name and endpoint.",
        Meaning.NO_UPLOAD: "Look whether the object is there, then run again.",
        Meaning.REFUSED: "Check the permissions of the key for this bucket.",
        Meaning.CREDENTIALS: "Check the access key id, its secret and its session token.",
        Meaning.CLOCK: (
            "Set this machine's clock, then run again: "
            "sudo systemctl enable --now systemd-timesyncd, or chronyd."
        ),
        Meaning.PLACE: (
            "Set the region and the endpoint of the bucket: AWS_REGION and AWS_ENDPOINT_URL, or "
            "R2_REGION and R2_ENDPOINT_URL."
        ),
        Meaning.UNSUPPORTED: (
            "Check that the endpoint is the S3 API of the provider and not a web site; if it is, "
            "update the server."
        ),
        Meaning.FULL: "Free space in the bucket or raise its quota. Nothing was stored.",
        Meaning.TOO_LARGE: "Raise the largest object size that the server or its proxy accepts.",
        Meaning.CHANGED: "Read the object again.",
        Meaning.INVALID: "Check that the endpoint is the S3 API of the provider.",
    }
)
"""What an operator must do, by meaning."""

_CODES: Final[Mapping[Meaning, str]] = {
    Meaning.RETRY: """
        InternalError InternalFailure ServiceUnavailable ServiceUnavailableException SlowDown
        SlowDownRead SlowDownWrite ServerBusy Busy Throttling ThrottlingException ThrottledException
        RequestThrottled RequestThrottledException RequestLimitExceeded TooManyRequests
        TooManyRequestsException BandwidthLimitExceeded ProvisionedThroughputExceededException
        RequestTimeout RequestTimeoutException IncompleteBody BadDigest XAmzContentSHA256Mismatch
        InvalidPart OperationAborted ConditionalRequestConflict PriorRequestNotComplete
        TransactionInProgress TemporaryRedirect XMinioServerNotInitialized
        XMinioReadQuorum XMinioWriteQuorum OperationTimedOut ClientDisconnected""",
    Meaning.CONDITION: "PreconditionFailed",
    Meaning.MISSING: "NoSuchKey NoSuchVersion NoSuchObject",
    Meaning.NO_BUCKET: "NoSuchBucket",
    Meaning.NO_UPLOAD: "NoSuchUpload",
    Meaning.REFUSED: """
        AccessDenied AccessForbidden AllAccessDisabled AccountProblem InvalidPayer NotSignedUp
        InvalidObjectState ObjectLocked UnauthorizedAccess UserSuspended RequestExpired""",
    Meaning.CREDENTIALS: """
        InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken ExpiredTokenException InvalidToken
        TokenRefreshRequired InvalidSecurity InvalidClientTokenId UnrecognizedClientException
        Unauthorized AuthFailure MissingSecurityHeader CredentialsNotSupported""",
    Meaning.CLOCK: "RequestTimeTooSkewed RequestInTheFuture",
    Meaning.PLACE: """
        PermanentRedirect Redirect AuthorizationHeaderMalformed IllegalLocationConstraintException
        IncorrectEndpoint InvalidRegionName""",
    Meaning.UNSUPPORTED: "NotImplemented MethodNotAllowed UnsupportedOperation",
    Meaning.FULL: """
        QuotaExceeded InsufficientStorage StorageFull StorageQuotaExceeded XMinioStorageFull
        XMinioAdminBucketQuotaExceeded ServiceQuotaExceeded InsufficientCapacity""",
    Meaning.TOO_LARGE: "EntityTooLarge MaxMessageLengthExceeded",
    Meaning.CHANGED: "InvalidRange",
    Meaning.INVALID: """
        InvalidArgument InvalidRequest InvalidBucketName InvalidDigest InvalidURI InvalidPartOrder
        MalformedXML MissingContentLength KeyTooLongError EntityTooSmall MetadataTooLarge
        AuthorizationQueryParametersError""",
}
_OF_CODE: Final = {code: meaning for meaning, codes in _CODES.items() for code in codes.split()}

_STATUSES: Final[Mapping[Meaning, tuple[int, ...]]] = {
    # 520 to 524 and 530: Cloudflare, before R2 and others.
    Meaning.RETRY: (307, 408, 409, 423, 425, 429, 500, 502, 503, 504, *range(520, 525), 530),
    Meaning.CONDITION: (304, 412),
    Meaning.MISSING: (404, 410),
    Meaning.REFUSED: (402, 403, 451),
    Meaning.CREDENTIALS: (401,),
    Meaning.PLACE: (301, 302, 303, 308),
    Meaning.UNSUPPORTED: (405, 501),
    Meaning.FULL: (507,),
    Meaning.TOO_LARGE: (413,),
    Meaning.CHANGED: (416,),
}
_OF_STATUS: Final = {status: meaning for meaning, all_ in _STATUSES.items() for status in all_}

_OF_MESSAGE: Final = (
    (re.compile(r"request has expired|signature expired", re.I), "RequestExpired"),
    (re.compile(r"not (yet valid|valid yet)|in the future", re.I), "RequestInTheFuture"),
    (re.compile(r"\b(storage|transaction|download)s? cap exceeded", re.I), "QuotaExceeded"),
)
"""Codes that some servers say only in the message of an AccessDenied."""

_SPECIAL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "RequestExpired": (
            "The signed address has expired: the work took longer than the address is valid, or "
            "the clock of the machine that signed it is behind."
        ),
        "RequestInTheFuture": (
            "The clock of the machine that signed the request is ahead. Set it: "
            "sudo systemctl enable --now systemd-timesyncd, or chronyd."
        ),
        "ExpiredToken": "Get a new session token: AWS_SESSION_TOKEN has expired.",
        "InvalidObjectState": "Restore the object from its archive first.",
        "SlowDown": "Send fewer requests at a time, or run again later.",
    }
)
_PROXY: Final = "A proxy or a web page answered in the server's place: check endpoint and proxy."


@dataclass(frozen=True)
class Answer:
    """An answer that is not a success. status: HTTP's. code, message: S3's, else empty.

    fields: other elements of the body by name, such as ServerTime and Region. strange: whether the
    body has text that is not S3's, such as a web page.
    """

    status: int
    code: str = ""
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    strange: bool = False

    @property
    def meaning(self) -> Meaning:
        """What it means. A status that nobody has heard of is temporary from 500 on only."""
        if self.code in _OF_CODE:
            return _OF_CODE[self.code]
        unknown = Meaning.INVALID if 300 <= self.status < 500 else Meaning.RETRY
        return _OF_STATUS.get(self.status, unknown)

    @property
    def remedy(self) -> str:
        """What an operator must do."""
        if self.strange:
            return _PROXY
        return _SPECIAL.get(self.code) or REMEDIES[self.meaning]

    @property
    def refuses_condition(self) -> bool:
        """Whether a server that got If-None-Match means that it does not know this header."""
        unknown = self.meaning is Meaning.UNSUPPORTED and self.code != "MethodNotAllowed"
        return unknown or self.code in ("InvalidArgument", "InvalidRequest")

    @property
    def text(self) -> str:
        """Status, code and message in one line."""
        parts = [f"HTTP {self.status}", self.code] if self.status else [self.code]
        said = " ".join(part for part in parts if part)
        return f"{said}: {self.message}" if self.message else said

    def skew(self, now: float | None = None) -> float | None:
        """Seconds by which this machine's clock is ahead of the server's; None if it does not say.

        now: unix seconds when the answer came.
        """
        try:
            server = datetime.fromisoformat(self.fields["ServerTime"].replace("Z", "+00:00"))
        except (KeyError, ValueError):
            return None
        if server.tzinfo is None:
            return None
        return (time.time() if now is None else now) - server.timestamp()


def read_answer(status: int, body: str = "") -> Answer:
    """An answer from its status and body, of which only the first MAX_BODY characters are read."""
    body = body[:MAX_BODY].strip()
    found: dict[str, str] = {}
    for name, value in re.findall(r"<([A-Za-z]{1,40})>([^<]{0,1000})</\1>", body):
        found.setdefault(name, " ".join(value.split()))
    code = found.pop("Code", "")
    if not re.fullmatch(r"[A-Za-z0-9.]{1,64}", code):
        return Answer(status, strange=bool(body))
    message = found.pop("Message", "")[:_MAX_MESSAGE]
    if code in ("AccessDenied", "AuthorizationQueryParametersError"):
        code = next((new for said, new in _OF_MESSAGE if said.search(message)), code)
    return Answer(status, code, message, found)


def clock_words(skew: float | None) -> str:
    """What is wrong with a clock. skew: seconds it is ahead of the server's, None if unknown."""
    if skew is None:
        return "this machine's clock differs from the bucket's by more than the bucket accepts"
    if abs(skew) < _LITTLE_SECONDS:
        return (
            "the bucket refuses the time of the request, although the clocks of this machine and "
            f"of the bucket differ by {abs(skew):.0f} s only; check the clocks of proxies between"
        )
    side = "ahead of" if skew > 0 else "behind"
    return f"this machine's clock is {abs(skew):,.0f} s {side} the bucket's"
