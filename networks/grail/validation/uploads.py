"""When an upload counts: deadline, size, which object is looked at (§2.6, §2.7, §3.2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from windrow.networks.grail.constants import (
    DEADLINE_SLACK_SECONDS,
    MAX_FILE_BYTES,
    MIN_FILE_BYTES,
)

ESTIMATE_BLOCKS: Final = 100
GZIP_SUFFIX: Final = ".gz"
_MILLISECONDS_FROM: Final = 1e12


class UploadState(StrEnum):
    """What a validator makes of a miner's upload. Only a usable one is fetched."""

    USABLE = "usable"
    MISSING = "missing"
    BAD_SIZE = "bad_size"
    LATE = "late"


@dataclass(frozen=True)
class ObjectHead:
    """What a HEAD request says. size: bytes. last_modified: unix seconds, None where not said."""

    size: int
    last_modified: float | None


@dataclass(frozen=True)
class Upload:
    """A decision on an upload. key: the object that decided. uploaded: unix seconds, if known."""

    state: UploadState
    key: str | None = None
    uploaded: float | None = None


def candidate_keys(key: str) -> tuple[str, str]:
    """The objects looked for under a key, in order (§3.2)."""
    if key.endswith(GZIP_SUFFIX):
        return key, key.removesuffix(GZIP_SUFFIX)
    return key + GZIP_SUFFIX, key


def decide_upload(
    key: str,
    heads: Mapping[str, ObjectHead],
    deadline: float | None,
    *,
    least: int = MIN_FILE_BYTES,
    most: int = MAX_FILE_BYTES,
) -> Upload:
    """Whether an upload counts (§3.2). The first object found decides alone, size before lateness.

    heads: objects that exist, of `candidate_keys`. deadline: unix seconds; None accepts any time.
    """
    found = next((candidate for candidate in candidate_keys(key) if candidate in heads), None)
    if found is None:
        return Upload(UploadState.MISSING)
    head = heads[found]
    if not least <= head.size <= most:
        return Upload(UploadState.BAD_SIZE, found)
    late = is_late(head.last_modified, deadline)
    return Upload(UploadState.LATE if late else UploadState.USABLE, found, head.last_modified)


def is_late(last_modified: float | None, deadline: float | None) -> bool:
    """Whether an upload came after the deadline (§2.7); an unknown time is never late."""
    return last_modified is not None and deadline is not None and last_modified > deadline


def upload_deadline(block_timestamp: float) -> float:
    """Latest LastModified that counts. block_timestamp: of block window + 30, unix seconds."""
    return block_timestamp + DEADLINE_SLACK_SECONDS


def timestamp_seconds(value: object) -> float | None:
    """A chain timestamp as unix seconds; beyond 1e12 it is milliseconds (§2.6). None: no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value / 1000.0 if value > _MILLISECONDS_FROM else float(value)


def anchor_block(current: int) -> int:
    """The block whose timestamp `estimate_timestamp` needs besides the current one's."""
    return max(0, current - ESTIMATE_BLOCKS)


def estimate_timestamp(
    target: int, current: int, current_timestamp: float, anchor_timestamp: float
) -> float:
    """Timestamp of a block that cannot be asked for, from the pace of late (§2.6). Seconds."""
    pace = (current_timestamp - anchor_timestamp) / max(1, current - anchor_block(current))
    return current_timestamp + (target - current) * pace
