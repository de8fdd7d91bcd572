"""Object keys, and the on-chain text that says where a miner's bucket is (grail-protocol §8.1)."""

import re
from dataclasses import dataclass, field
from typing import Final

from windrow import WindrowError
from windrow.networks.grail.windows import parse_window

WINDOWS_PREFIX: Final = "grail/windows/"
COMMITMENT_CHARS: Final = 128
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_HOTKEY: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{1,64}")
_WINDOW_FILE: Final = re.compile(
    rf"{WINDOWS_PREFIX}([1-9A-HJ-NP-Za-km-z]{{1,64}})-window-([0-9]{{1,18}})\.parquet"
)


class MalformedBucket(WindrowError):
    """A bucket commitment or a hotkey does not have the network's form."""


@dataclass(frozen=True)
class BucketCommitment:
    """Read access to a bucket as published on chain; the bucket is named like the account.

    Fields hold no surrounding spaces and are never empty; what they hold besides is the
    publisher's choice.
    """

    account_id: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)

    @property
    def endpoint(self) -> str:
        """Where the bucket is served. Raises MalformedBucket for an id that is no host label."""
        if not _HOST_LABEL.fullmatch(self.account_id):
            raise MalformedBucket(
                f"bucket account id {self.account_id!r} is no host label; ignore this bucket"
            )
        return f"https://{self.account_id}.r2.cloudflarestorage.com"

    def encode(self) -> str:
        """The 128 characters to commit on chain: 32 + 32 + 64, padded or cut to size."""
        account, key_id, secret = self.account_id, self.access_key_id, self.secret_access_key
        return f"{account.strip():<32.32}{key_id.strip():<32.32}{secret.strip():<64.64}"

    @classmethod
    def decode(cls, text: str) -> "BucketCommitment":
        """Read the on-chain text. Raises MalformedBucket for another length or an empty field."""
        if len(text) != COMMITMENT_CHARS:
            raise MalformedBucket(f"a bucket commitment has 128 characters, not {len(text)}")
        fields = [part.strip() for part in (text[:32], text[32:64], text[64:])]
        if not all(fields):
            raise MalformedBucket("a bucket commitment leaves one of its three fields empty")
        return cls(*fields)


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
