"""What a key may do in a bucket, found out with an object of our own and nothing else."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from windrow.resources.storage.objects import (
    BucketRefused,
    ObjectExists,
    ObjectMissing,
    ObjectStore,
    ObjectStoreError,
)
from windrow.resources.storage.s3_bucket import S3Bucket

PROBE_PREFIX: Final = "windrow-probe-"
PROBE_SECONDS: Final = 15.0


class WrongRights(ObjectStoreError):
    """A key may do too much or too little."""


@dataclass(frozen=True)
class Rights:
    """What a key was seen to be allowed. deletes: None where there was nothing of ours to delete.

    left: key of a probe that could be written but not removed again.
    """

    lists: bool
    reads: bool
    writes: bool
    deletes: bool | None
    left: str | None = None


def probe_rights(
    bucket: ObjectStore, readable: str | None = None, *, seconds: float = PROBE_SECONDS
) -> Rights:
    """What the key of a bucket may do, by doing it to an object with a random name.

    readable: key of an object to read instead, where this one may not be written. seconds: to
    write it in. The probe is removed. Raises BucketUnavailable or NotStoredInTime where the bucket
    does not answer: silence says nothing of rights.
    """
    key = f"{PROBE_PREFIX}{secrets.token_hex(16)}"
    writes = _allowed(lambda: bucket.put(key, b"windrow", create=True, within=seconds))
    target = readable or key
    # A key that may not list is told so of an object that is missing, too.
    reads = _allowed(lambda: bucket.get(target, max_bytes=1024**2))
    lists = _allowed(lambda: bucket.list(f"{PROBE_PREFIX}folder/"))
    deletes = _allowed(lambda: bucket.delete(key)) if writes else None
    return Rights(lists, reads, writes, deletes, key if writes and not deletes else None)


def check_key_pair(
    writer: ObjectStore, reader: ObjectStore, *, seconds: float = PROBE_SECONDS
) -> None:
    """Refuse keys a miner must not use: of one bucket, the write key writes and reads, the read key
    reads and does nothing else, for it is published on chain.

    Raises WrongRights, BucketUnavailable, NotStoredInTime.
    """
    probe = f"{PROBE_PREFIX}{secrets.token_hex(16)}"
    try:
        writer.put(probe, b"windrow", create=True, within=seconds)
    except BucketRefused as error:
        raise WrongRights(f"The write key may not write: {error}") from error
    try:
        own = probe_rights(writer, probe, seconds=seconds)
        given = probe_rights(reader, probe, seconds=seconds)
        seen = _allowed(lambda: reader.head(probe))
    finally:
        writer.delete(probe)
    if given.left is not None:
        writer.delete(given.left)
    if given.writes:
        raise WrongRights(
            "The read key can write, and it is published on chain: anybody could replace your "
            "files. Make a token that only reads this bucket, and revoke this one."
        )
    if not given.reads or not seen:
        raise WrongRights(
            "The read key cannot read what the write key wrote: validators would find no files. "
            "Give it read access to the same bucket."
        )
    if not own.reads or not own.deletes:
        raise WrongRights(
            "The write key writes but cannot read or delete, so that uploads cannot be compared "
            "nor old windows removed. Give it read and write access to the bucket."
        )


def probe_condition(
    bucket: S3Bucket, *, seconds: float = PROBE_SECONDS
) -> Literal["kept", "unknown", "ignored"]:
    """What a server makes of the condition that an object must not replace another.

    unknown: it says that it does not know the condition. ignored: it replaces the object all the
    same. An object of our own is stored and removed. Raises ObjectStoreError.
    """
    key = f"{PROBE_PREFIX}{secrets.token_hex(16)}"
    bucket.put(key, b"windrow", create=True, within=seconds)
    try:
        if not bucket.conditions:
            return "unknown"
        try:
            bucket.put_on_condition(key, b"windrow", seconds)
        except ObjectExists:
            return "kept"
        return "ignored"
    finally:
        bucket.delete(key)


def _allowed(act: Callable[[], object]) -> bool:
    try:
        act()
    except BucketRefused:
        return False
    except ObjectMissing:
        pass
    return True
