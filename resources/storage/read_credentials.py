"""Read access to a miner's bucket, published on chain and read from there (§8.1, §17)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from windrow.networks.grail.bucket import BucketCommitment, MalformedBucket
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import ObjectStore
from windrow.resources.storage.s3_access import S3Access, S3AccessMissing
from windrow.resources.storage.s3_bucket import S3Bucket


class Commitments(Protocol):
    """The part of a chain that holds commitments."""

    def commit(self, hotkey: str, text: str) -> None:
        """Store a hotkey's commitment, replacing the last."""
        ...

    def commitment(self, hotkey: str) -> str | None:
        """A hotkey's commitment, if it made one."""
        ...


def read_commitment(account_id: str, bucket: str, reader: S3Access) -> BucketCommitment:
    """What to publish for a bucket's read key. Raises MalformedBucket for what would not survive.

    The network names the bucket like its account, cuts fields to size and knows no session token.
    """
    if bucket != account_id:
        raise MalformedBucket(
            f"the bucket is named {bucket!r:.80}, but validators look for one named like its "
            f"account, {account_id!r:.80}; rename the bucket"
        )
    made = BucketCommitment(account_id, reader.key_id, reader.secret.reveal())
    if reader.token is not None or BucketCommitment.decode(made.encode()) != made:
        raise MalformedBucket(
            f"the read key of bucket {bucket} does not fit the 32 + 32 + 64 characters on chain; "
            "make a key of the object store's own, without a session token"
        )
    # Refused here, before it is on chain: an account id that is no host name.
    _ = made.endpoint
    return made


def commit_read_credentials(chain: Commitments, hotkey: str, commitment: BucketCommitment) -> bool:
    """Publish read access unless the chain has it already. Returns whether it was written.

    Raises ChainError.
    """
    text = commitment.encode()
    if chain.commitment(hotkey) == text:
        return False
    chain.commit(hotkey, text)
    return True


@dataclass(frozen=True)
class CommittedBuckets:
    """Other miners' buckets, opened with what they published.

    commitment: a hotkey's text on chain, None without one. endpoint, region, path_style: of every
    bucket, where it is not R2 (§8.1).
    """

    commitment: Callable[[str], str | None]
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    read_seconds: float = 6.0

    def open(self, hotkey: str) -> ObjectStore | None:
        """The bucket of a hotkey, None where it has published none that can be read.

        Raises ChainError: a chain that fails must not look like a network without buckets.
        """
        text = self.commitment(hotkey)
        if text is None:
            return None
        try:
            made = BucketCommitment.decode(text)
            access = S3Access.r2(
                made.account_id,
                made.access_key_id,
                Secret(made.secret_access_key),
                endpoint=self.endpoint,
                region=self.region,
                path_style=self.path_style,
            )
            return S3Bucket(made.account_id, access, read_seconds=self.read_seconds)
        except (MalformedBucket, S3AccessMissing):
            return None
