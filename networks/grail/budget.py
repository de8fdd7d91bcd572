"""Whether a window has time for another group, by moving averages (grail-protocol §10.2)."""

import math
from dataclasses import dataclass, replace
from typing import Final

from windrow.networks.grail.constants import BLOCK_SECONDS, WINDOW_BLOCKS

ALPHA: Final = 0.2
SAFETY_BLOCKS: Final = 3
FIRST_GROUP_BLOCKS: Final = 6
FIRST_UPLOAD_BLOCKS: Final = 1
MAX_GROUP_SECONDS: Final = 360.0


@dataclass(frozen=True)
class TimeBudget:
    """Moving averages of the seconds of a block, a group and an upload; observing gives a new one.

    group_seconds and upload_seconds are None until observed and then guessed in block times.
    last_block: the latest (block, unix seconds) observed.
    """

    block_seconds: float = BLOCK_SECONDS
    group_seconds: float | None = None
    upload_seconds: float | None = None
    last_block: tuple[int, float] | None = None
    safety_blocks: int = SAFETY_BLOCKS

    def observe_block(self, block: int, unix_time: float) -> "TimeBudget":
        """Take in the chain's height at a time. A step back in either only moves the reference."""
        seconds = self.block_seconds
        if self.last_block is not None:
            blocks, elapsed = block - self.last_block[0], unix_time - self.last_block[1]
            if blocks > 0 and elapsed > 0:
                seconds = _average(seconds, elapsed / blocks)
        return replace(self, block_seconds=seconds, last_block=(block, unix_time))

    def observe_group(self, seconds: float) -> "TimeBudget":
        """Take in how long a group took. Callers cap a whole group's at MAX_GROUP_SECONDS."""
        return replace(self, group_seconds=_average(self.group_seconds, seconds))

    def observe_upload(self, seconds: float) -> "TimeBudget":
        """Take in how long an upload took."""
        return replace(self, upload_seconds=_average(self.upload_seconds, seconds))

    def blocks_needed(self) -> int:
        """Blocks that one more group and the upload take, 1..29."""
        block = self.block_seconds
        group = FIRST_GROUP_BLOCKS * block if self.group_seconds is None else self.group_seconds
        upload = FIRST_UPLOAD_BLOCKS * block if self.upload_seconds is None else self.upload_seconds
        blocks = (group + upload + self.safety_blocks * block) / max(0.001, block)
        return math.ceil(max(1.0, min(WINDOW_BLOCKS - 1, blocks)))

    def has_time(self, window: int, block: int) -> bool:
        """Whether one more group fits between ``block`` and the end of ``window``."""
        return window + WINDOW_BLOCKS - block > self.blocks_needed()


def _average(previous: float | None, value: float) -> float:
    return value if previous is None else (1 - ALPHA) * previous + ALPHA * value
