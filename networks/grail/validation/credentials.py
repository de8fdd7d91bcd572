"""Bucket commitments as the chain stores them (grail-validation §17.1, §17.2)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bittensor_core import ss58_encode

from windrow.networks.grail.bucket import BucketCommitment, MalformedBucket

ACCOUNT_BYTES: Final = 32


@dataclass(frozen=True)
class ChainRow:
    """One entry of Commitments.CommitmentOf. payload: its only field's bytes, None if it has
    another shape."""

    account: bytes
    payload: bytes | None = field(repr=False)


def decode_rows(rows: Iterable[ChainRow], uids: Mapping[str, int]) -> dict[int, BucketCommitment]:
    """Readable commitments of the metagraph's miners, by uid (§17.2); all others are skipped.

    uids: by hotkey.
    """
    buckets = {}
    for row in rows:
        bucket = _decode(row.payload)
        uid = uids.get(ss58_encode(row.account)) if len(row.account) == ACCOUNT_BYTES else None
        if bucket is not None and uid is not None:
            buckets[uid] = bucket
    return buckets


def already_published(
    stored: BucketCommitment, bucket_name: str, access_key_id: str, secret_access_key: str
) -> bool:
    """Whether the network's own client would leave a stored commitment as it is (§17.1).

    The stored bucket is named like its account; a bucket of another name never matches, and is
    published again at every start.
    """
    return (stored.account_id, stored.access_key_id, stored.secret_access_key) == (
        bucket_name,
        access_key_id,
        secret_access_key,
    )


def _decode(payload: bytes | None) -> BucketCommitment | None:
    if payload is None:
        return None
    try:
        return BucketCommitment.decode(payload.decode())
    except (UnicodeDecodeError, MalformedBucket):
        return None
