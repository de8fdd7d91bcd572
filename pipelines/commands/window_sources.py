"""Window files by path or s3:// URL, bounded as validators bound what they fetch."""

import re
import stat
from pathlib import Path
from typing import Final

from windrow import WindrowError
from windrow.networks.grail.constants import MAX_FILE_BYTES
from windrow.networks.grail.submission_checks import check_file_size
from windrow.networks.grail.validation.uploads import GZIP_SUFFIX
from windrow.resources.miners import UploadChanged, UploadTooLarge, inflated
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import s3_bucket

_S3: Final = re.compile(r"s3://([^/]+)/(.+)")


class CannotVerify(WindrowError):
    """A file cannot be read here, or nothing says what to hold it against."""


class NotFetched(WindrowError):
    """Validators take no such file from a bucket."""

    def __init__(self, problem: str, network_reason: str, size: int) -> None:
        super().__init__(problem)
        self.network_reason = network_reason
        self.size = size


def read_source(location: str) -> bytes:
    """A file's bytes, as a validator would have them, from a path or an s3:// URL.

    Raises CannotVerify, NotFetched, S3AccessMissing, ObjectStoreError.
    """
    if "://" in location:
        return _of_bucket(location)
    try:
        path = Path(location)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CannotVerify(f"{location} is no file; name a window file")
        refuse_size(status.st_size)
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CannotVerify(f"{location} cannot be read: {reason}") from error
    return _unpacked(location, content)


def _of_bucket(location: str) -> bytes:
    match = _S3.fullmatch(location)
    if match is None:
        raise CannotVerify(f"{location} is neither a path nor s3://BUCKET/KEY")
    bucket = s3_bucket(match[1], S3Access.from_environment())
    info = bucket.head(match[2])
    # Only the body of an answer tells a missing object from a missing bucket.
    if info is not None:
        refuse_size(info.size)
    return _unpacked(location, bucket.get(match[2], max_bytes=MAX_FILE_BYTES))


def _unpacked(location: str, content: bytes) -> bytes:
    if not location.endswith(GZIP_SUFFIX):
        return content
    try:
        return inflated(content, location)
    except (UploadChanged, UploadTooLarge) as error:
        raise NotFetched(str(error), "unreadable", len(content)) from error


def refuse_size(size: int) -> None:
    """Raise NotFetched for a size that validators treat as missing (§3.2)."""
    for violation in check_file_size(size).to_pylist():
        threshold = violation["threshold"]
        raise NotFetched(
            f"{violation['reason']}: {size:,} bytes, the limit is {threshold:,.0f}",
            "bad_size",
            size,
        )
