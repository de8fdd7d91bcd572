"""Clearing a miner's own bucket of windows that nobody fetches any more."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from windrow.networks.grail.bucket import WINDOWS_PREFIX, parse_window_file_key
from windrow.networks.grail.validation.uploads import GZIP_SUFFIX
from windrow.resources.storage.multipart import client_answer
from windrow.resources.storage.objects import ObjectStore, ObjectStoreError
from windrow.resources.storage.s3_bucket import S3Bucket

UPLOAD_AGE: Final = timedelta(days=1)


class S3Clients(Protocol):
    """Dagster's `S3Resource`, as much of it as is used here."""

    def get_client(self) -> Any:
        """A boto3 client."""
        ...


def expire_windows(bucket: ObjectStore, hotkey: str, before: int) -> list[str]:
    """Delete a miner's files of windows before one; returns their keys. Nothing else is touched.

    before: first block of the oldest window to keep. Raises ObjectStoreError; run again then.
    """
    expired = []
    for info in bucket.list(_prefix(hotkey)):
        named = parse_window_file_key(info.key.removesuffix(GZIP_SUFFIX))
        if named is not None and named[0] == hotkey and named[1] < before:
            bucket.delete(info.key)
            expired.append(info.key)
    return expired


def clear_unfinished(
    s3: S3Clients | None, bucket: ObjectStore, hotkey: str, *, now: datetime | None = None
) -> list[str]:
    """End a miner's uploads in parts that began over a day ago and never ended; returns their keys.

    A killed process leaves such parts, which are paid for but cannot be seen; a folder has none.
    s3: of the bucket's server, with a key that writes. Raises ObjectStoreError; run again then.
    """
    if s3 is None or not isinstance(bucket, S3Bucket):
        return []
    from botocore.exceptions import BotoCoreError, ClientError

    since, ended = (now or datetime.now(UTC)) - UPLOAD_AGE, []
    try:
        client = s3.get_client()
        pages = client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=bucket.bucket, Prefix=_prefix(hotkey)):
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < since:
                    client.abort_multipart_upload(
                        Bucket=bucket.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    ended.append(upload["Key"])
    except (BotoCoreError, ClientError) as error:
        answer = client_answer(error) if isinstance(error, ClientError) else None
        said = f"{answer.text}. {answer.remedy}" if answer else f"{error}."
        raise ObjectStoreError(
            f"Unfinished uploads to s3://{bucket.bucket} cannot be removed: {said} The write key "
            "must be allowed to list and abort them, or the bucket must have a lifecycle rule that "
            "aborts them."
        ) from None
    return ended


def _prefix(hotkey: str) -> str:
    return f"{WINDOWS_PREFIX}{hotkey}-window-"
