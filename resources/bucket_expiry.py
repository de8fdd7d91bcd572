"""Clearing a miner's own bucket of windows that nobody fetches any more."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from windrow.networks.grail.bucket import WINDOWS_PREFIX, parse_window_file_key
from windrow.networks.grail.validation.uploads import GZIP_SUFFIX
from windrow.resources.objects import ObjectStore

UPLOAD_AGE: Final = timedelta(days=1)


def expire_windows(bucket: ObjectStore, hotkey: str, before: int) -> list[str]:
    """Delete a miner's files of windows before one; returns their keys. Nothing else is touched.

    before: first block of the oldest window to keep. Raises ObjectStoreError; run again then.
    """
    expired = []
    for info in bucket.list(f"{WINDOWS_PREFIX}{hotkey}-window-"):
        named = parse_window_file_key(info.key.removesuffix(GZIP_SUFFIX))
        if named is not None and named[0] == hotkey and named[1] < before:
            bucket.delete(info.key)
            expired.append(info.key)
    return expired


def abort_stale_uploads(client: Any, bucket: str, *, now: datetime | None = None) -> list[str]:
    """End uploads in parts that were begun over a day ago and never finished; returns their keys.

    A killed process leaves such parts, which are paid for but cannot be seen. client: of boto3,
    such as dagster_aws' S3Resource gives.
    """
    since = (now or datetime.now(UTC)) - UPLOAD_AGE
    stale = []
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            if upload["Initiated"] < since:
                client.abort_multipart_upload(
                    Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
                stale.append(upload["Key"])
    return stale
