"""What one window run works on, and the clock it works by."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from windrow.networks.grail.checkpoint import GenerationPolicy


class Clock(Protocol):
    """The chain's height and the time of day."""

    def block(self) -> int:
        """The chain's current block."""
        ...

    def now(self) -> float:
        """Unix time in seconds."""
        ...


@dataclass(frozen=True)
class WindowPlan:
    """What one window run works on.

    randomness: R_m, plain hex (§2). max_groups: finished groups to stop at; None: as time allows.
    groups_in_flight: most groups held in memory at once, over all stages; fewer than the lanes of
    generation and proof together leave lanes idle.
    timed: honour the window's end; False replays a window that is already over.
    """

    window_start: int
    block_hash: str
    randomness: str
    hotkey: str
    policy: GenerationPolicy
    vocab_size: int
    eos_token_id: int
    max_groups: int | None
    groups_in_flight: int
    timed: bool


def request_seed(hotkey: str, block_hash: str, group: int, index: int) -> int:
    """Sampling seed of one rollout, 63 bits; the same on every run of the window."""
    digest = hashlib.sha256(f"request|{hotkey}:{block_hash}:{group}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
