"""An object sent in parts that must not replace another one: S3 takes that condition with the last
request, `CompleteMultipartUpload`. Nothing is to be seen of the object before it.

obstore sends parts without a condition, so boto3 does this.
"""

import contextlib
import io
import mmap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar
from xml.sax.saxutils import escape

from windrow.networks.s3_answers import Answer, Meaning, read_answer
from windrow.resources.storage.objects import Answered, BucketUnavailable, ObjectExists
from windrow.resources.storage.patience import Patience
from windrow.resources.storage.s3_access import S3Access

PARTS_IN_FLIGHT: Final = 8
ATTEMPTS: Final = 4
"""At one request; then the whole is given up, and its parts are deleted."""
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 60.0
# Amazon wants all parts sent once more then.
_FROM_THE_START: Final = "ConditionalRequestConflict"

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


def create_in_parts(
    access: S3Access,
    new: NewObject,
    part_bytes: int,
    seconds: float,
    alone: Callable[[float], AbstractContextManager[None]],
) -> bool:
    """Store an object in parts, unless there is one of its key when the last has been sent.

    Returns whether the server knows the condition. One that does not is asked whether the object
    is there, then sent the last request without it, both under `alone`, a lock taken for at most
    so many seconds. A server that ignores the condition replaces what was stored since it was
    asked, right before the last request.
    seconds: the last request is not begun after these.
    Raises ObjectExists, Answered, and BucketUnavailable where no answer came.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    patience, place = Patience(seconds), {"Bucket": new.bucket, "Key": new.key}
    try:
        client = _client(access, seconds)
        upload = client.create_multipart_upload(**place, Metadata=dict(new.metadata))["UploadId"]
        try:
            parts = _send_parts(client, {**place, "UploadId": upload}, new, part_bytes, patience)
            _check_absent(client, place)
            return _complete(client, place, upload, parts, patience, alone)
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
        if client_answer(error).meaning is not Meaning.MISSING:
            raise
    else:
        raise ObjectExists("an object is already there")


def _complete(
    client: Any,
    place: Mapping[str, str],
    upload: str,
    parts: list[dict[str, Any]],
    patience: Patience,
    alone: Callable[[float], AbstractContextManager[None]],
) -> bool:
    from botocore.exceptions import ClientError

    def complete(**condition: str) -> None:
        client.complete_multipart_upload(
            **place, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
        )

    try:
        _repeated(lambda: complete(IfNoneMatch="*"), patience)
    except ClientError as error:
        if not client_answer(error).refuses_condition:
            raise
        with alone(patience.left):
            _check_absent(client, place)
            _repeated(complete, patience)
        return False
    return True


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
            lasting = isinstance(error, ClientError) and not _repeats(client_answer(error))
            if lasting or attempt == ATTEMPTS or not waits.wait():
                raise
    raise AssertionError


def _repeats(answer: Answer) -> bool:
    return answer.meaning is Meaning.RETRY and answer.code != _FROM_THE_START


def client_answer(error: Any) -> Answer:
    """What a server answered, from boto3's error."""
    said = {name: text for name, text in error.response["Error"].items() if isinstance(text, str)}
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = said.get("Code", "")
    # boto3 puts the status there where no body came.
    body = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in said.items())
    return read_answer(status, "" if code in ("", str(status)) else body)


def _raise_named(error: Exception) -> NoReturn:
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        raise Answered(client_answer(error)) from error
    raise BucketUnavailable(str(error)) from error


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
