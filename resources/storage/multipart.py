"""An object sent in parts that must not replace another one: S3 takes that condition with the last
request, `CompleteMultipartUpload`, before which nothing is to be seen of the object.

obstore sends parts without a condition, so boto3 does this.
"""

import contextlib
import io
import mmap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from windrow.resources.storage.objects import (
    BucketMissing,
    BucketRefused,
    BucketUnavailable,
    ObjectExists,
    ObjectStoreError,
)
from windrow.resources.storage.patience import Patience
from windrow.resources.storage.s3_access import S3Access

PARTS_IN_FLIGHT: Final = 8
ATTEMPTS: Final = 4
"""At one request; then the whole is given up, and its parts are deleted."""
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 60.0
_CONDITION_UNKNOWN: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest"})
_ASK_AGAIN: Final = frozenset({404, 409})
_REPEAT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")


@dataclass(frozen=True)
class NewObject:
    """What is sent, and where. metadata: goes with it."""

    bucket: str
    key: str
    content: bytes | mmap.mmap
    metadata: Mapping[str, str]


class _Bytes(io.RawIOBase):
    """A file over some of an object, read piece by piece: eight parts would take 400 MiB."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._view[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = start + offset
        return self._at


def create_in_parts(access: S3Access, new: NewObject, part_bytes: int, seconds: float) -> None:
    """Store an object in parts, unless there is one of its key when the last has been sent.

    A server that says it does not know the condition is not given it, and one that ignores it
    replaces what was stored since it was asked, right before the last request.
    seconds: the last request is not begun after these.
    Raises ObjectExists, BucketMissing, BucketRefused, and BucketUnavailable where it failed or
    where it is not known whether it was stored.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    patience, place = Patience(seconds), {"Bucket": new.bucket, "Key": new.key}
    try:
        client = _client(access, seconds)
        upload = client.create_multipart_upload(**place, Metadata=dict(new.metadata))["UploadId"]
        try:
            parts = _send_parts(client, {**place, "UploadId": upload}, new, part_bytes, patience)
            _check_absent(client, place)
            _complete(client, {**place, "UploadId": upload}, parts, patience)
        except BaseException:
            with contextlib.suppress(BotoCoreError, ClientError):
                client.abort_multipart_upload(**place, UploadId=upload)
            raise
    except (BotoCoreError, ClientError) as error:
        _raise_named(error)


def _send_parts(
    client: Any, place: Mapping[str, str], new: NewObject, part_bytes: int, patience: Patience
) -> list[dict[str, Any]]:
    def send(start: int) -> dict[str, Any]:
        number = start // part_bytes + 1
        with memoryview(new.content)[start : start + part_bytes] as view:

            def upload() -> Any:
                return client.upload_part(**place, PartNumber=number, Body=_Bytes(view))

            return {"PartNumber": number, "ETag": _repeated(upload, patience)["ETag"]}

    with ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="part") as threads:
        starts = range(0, len(new.content), part_bytes)
        sending = [threads.submit(send, start) for start in starts]
        try:
            return [future.result() for future in sending]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _check_absent(client: Any, place: Mapping[str, str]) -> None:
    from botocore.exceptions import ClientError

    try:
        client.head_object(**place)
    except ClientError as error:
        if _status(error) != 404:
            raise
    else:
        raise ObjectExists("an object is already there")


def _complete(
    client: Any, place: Mapping[str, str], parts: list[dict[str, Any]], patience: Patience
) -> None:
    from botocore.exceptions import ClientError

    def complete(**condition: str) -> None:
        client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts}, **condition)

    try:
        _repeated(lambda: complete(IfNoneMatch="*"), patience)
    except ClientError as error:
        if error.response["Error"].get("Code") not in _CONDITION_UNKNOWN:
            raise
        _repeated(complete, patience)


def _repeated(request: Callable[[], T], patience: Patience) -> T:
    """What a request answers, made again where the server or the way to it failed."""
    from botocore.exceptions import BotoCoreError, ClientError

    waits = Patience(patience.left)
    for attempt in range(1, ATTEMPTS + 1):
        if not patience.left:
            raise BucketUnavailable("the time for it ended before all of it was sent")
        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            lasting = isinstance(error, ClientError) and _status(error) not in _REPEAT
            if lasting or attempt == ATTEMPTS or not waits.wait():
                raise
    raise AssertionError


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _raise_named(error: Exception) -> NoReturn:
    from botocore.exceptions import ClientError

    named: type[ObjectStoreError] = BucketUnavailable
    if isinstance(error, ClientError):
        status = _status(error)
        if status == 412:
            named = ObjectExists
        elif error.response["Error"].get("Code") == "NoSuchBucket":
            named = BucketMissing
        elif 400 <= status < 500 and status not in _REPEAT | _ASK_AGAIN:
            named = BucketRefused
    raise named(str(error)) from error


def _client(access: S3Access, seconds: float) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        region_name=access.region,
        aws_access_key_id=access.key_id,
        aws_secret_access_key=access.secret.reveal(),
        aws_session_token=access.token.reveal() if access.token else None,
        config=Config(
            connect_timeout=min(CONNECT_SECONDS, seconds),
            read_timeout=min(READ_SECONDS, seconds),
            retries={"total_max_attempts": 1},
            max_pool_connections=PARTS_IN_FLIGHT,
            # Servers that are not Amazon's may know no checksum but that of a signed request.
            request_checksum_calculation="when_required",
            s3={
                "addressing_style": "path" if access.in_path else "virtual",
                "payload_signing_enabled": True,
            },
        ),
    )
