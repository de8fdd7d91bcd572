"""Object keys, and the on-chain text that says where a miner's bucket is (grail-protocol §8.1)."""

import re
from dataclasses import dataclass, field
from typing import Final

from windrow import WindrowError
from windrow.networks.grail.windows import parse_window

WINDOWS_PREFIX: Final = "grail/windows/"
COMMITMENT_CHARS: Final = 128
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_KEY_ID: Final = re.compile(r"[!-~]{1,32}")
_SECRET: Final = re.compile(r"[!-~]{1,64}")
_HOTKEY: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{1,64}")
_WINDOW_FILE: Final = re.compile(
    rf"{WINDOWS_PREFIX}([1-9A-HJ-NP-Za-km-z]{{1,64}})-window-([0-9]{{1,18}})\.parquet"
)


class MalformedBucket(WindrowError):
    """A bucket commitment or an object key does not have the network's form."""


@dataclass(frozen=True)
class BucketCommitment:
    """Read access to a bucket, as published on chain. The bucket is named like the account."""

    account_id: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)

    def __post_init__(self) -> None:
        # The account id becomes a host name, so nothing that could move the host may pass.
        if not _ACCOUNT.fullmatch(self.account_id):
            raise MalformedBucket(f"bucket account id {self.account_id!r:.40} is no host label")
        if not _KEY_ID.fullmatch(self.access_key_id):
            raise MalformedBucket("bucket access key id is not 1..32 printable characters")
        if not _SECRET.fullmatch(self.secret_access_key):
            raise MalformedBucket("bucket secret is not 1..64 printable characters")

    @property
    def endpoint(self) -> str:
        return f"https://{self.account_id}.r2.cloudflarestorage.com"

    def encode(self) -> str:
        """The 128 characters to commit on chain: 32 + 32 + 64, padded with spaces."""
        return f"{self.account_id:<32}{self.access_key_id:<32}{self.secret_access_key:<64}"

    @classmethod
    def decode(cls, text: str) -> "BucketCommitment":
        """Read the on-chain text. Raises MalformedBucket."""
        if len(text) != COMMITMENT_CHARS:
            raise MalformedBucket(f"a bucket commitment has 128 characters, not {len(text)}")
        return cls(text[:32].strip(), text[32:64].strip(), text[64:].strip())


def window_file_key(hotkey: str, window: int) -> str:
    """Where a miner's file of a window lies in its bucket. Raises MalformedBucket."""
    if not _HOTKEY.fullmatch(hotkey):
        raise MalformedBucket(f"hotkey {hotkey!r:.80} is no SS58 address")
    return f"{WINDOWS_PREFIX}{hotkey}-window-{window}.parquet"


def parse_window_file_key(key: str) -> tuple[str, int] | None:
    """The hotkey and window a key names, or None for any other key."""
    match = _WINDOW_FILE.fullmatch(key)
    window = parse_window(match[2]) if match else None
    return None if match is None or window is None else (match[1], window)
