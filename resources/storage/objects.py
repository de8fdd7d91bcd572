"""What a bucket promises: objects that are whole or absent, keys, and errors that have a name."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from windrow import WindrowError
from windrow.networks.s3_answers import Answer

MAX_KEY_BYTES = 1024
# A file name holds 255 bytes, and a folder bucket adds "#<n>" while it writes.
MAX_SEGMENT_BYTES = 240
_SEGMENT = re.compile(rf"[A-Za-z0-9_.=@+,:~!$&'() -]{{1,{MAX_SEGMENT_BYTES}}}", re.ASCII)


class ObjectStoreError(WindrowError):
    """A bucket did not do what was asked."""


class InvalidKey(ObjectStoreError):
    """A key that could leave the bucket, or that some store cannot hold."""


class ObjectMissing(ObjectStoreError):
    """No object has this key."""


class ObjectExists(ObjectStoreError):
    """A conditional create found an object already there."""


class ObjectTooLarge(ObjectStoreError):
    """An object is larger than the reader allows."""


class BucketRefused(ObjectStoreError):
    """The bucket does not allow the operation: credentials, permissions or read-only."""


class ClockSkewed(ObjectStoreError):
    """The clocks of this machine and of the bucket differ by more than the bucket accepts."""


class RequestInvalid(ObjectStoreError):
    """The server cannot serve the request as it is sent: another region, endpoint or form."""


class NotSupported(ObjectStoreError):
    """The server does not implement what it was asked."""


class Answered(ObjectStoreError):
    """An S3 server answered a request with an error. Raised inside this package only."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.text)
        self.answer = answer


class BucketMissing(ObjectStoreError):
    """There is no bucket of this name."""


class BucketFull(ObjectStoreError):
    """The bucket has no room left."""


class ObjectChanged(ObjectStoreError):
    """An object was replaced while it was read."""


class BucketUnavailable(ObjectStoreError):
    """The bucket cannot be reached or failed in a way that has no name of its own."""


class NotStoredInTime(ObjectStoreError):
    """The time an object had to be stored in ended before the bucket had it for certain."""


@dataclass(frozen=True)
class ObjectInfo:
    """size in bytes; last_modified in unix seconds, by the bucket's own clock."""

    key: str
    size: int
    last_modified: float
    etag: str | None


class ObjectStore(Protocol):
    """A bucket. Every method raises a subclass of ObjectStoreError; a key is checked first."""

    def put(
        self, key: str, data: bytes, *, create: bool = False, within: float | None = None
    ) -> ObjectInfo:
        """Store bytes; with create, raise ObjectExists rather than replace an object.

        within: seconds after which storing it is no longer wanted; a bucket that repeats what
        failed raises NotStoredInTime then.
        """
        ...

    def put_file(
        self, key: str, path: Path, *, create: bool = False, within: float | None = None
    ) -> ObjectInfo:
        """As put, from a file, without reading it into memory."""
        ...

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The whole object. Raises ObjectTooLarge before reading more than max_bytes."""
        ...

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, resume: bool = False
    ) -> ObjectInfo:
        """Stream the object into a file that appears whole; an older file there is replaced.

        resume: keep what was fetched when it fails, and go on from there the next time.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, or None."""
        ...

    def list(self, prefix: str = "", *, start_after: str = "") -> list[ObjectInfo]:
        """Objects whose key starts with prefix and sorts after start_after, sorted by key."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...


def check_key(key: str) -> str:
    """A key that means the same in every store. Raises InvalidKey.

    Segments joined by "/", of ASCII letters, digits and ``_.=@+,:~!$&'() -``; none is "." or "..".
    """
    segments = key.split("/")
    if len(key) > MAX_KEY_BYTES or not all(
        _SEGMENT.fullmatch(segment) and segment not in {".", ".."} for segment in segments
    ):
        raise InvalidKey(
            f"{key[:100]!a} is not an object key: use segments joined by '/', none empty, "
            f"'.' or '..', of letters, digits and _.=@+,:~!$&'() -, {MAX_KEY_BYTES} bytes in all."
        )
    return key
