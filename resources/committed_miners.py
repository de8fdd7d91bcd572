"""The miners of a Bittensor subnet: who is registered, and the bucket each has committed."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from windrow import WindrowError
from windrow.networks.grail.validation.uploads import Upload, UploadState
from windrow.resources.miners import FoundUpload, SharedBucket, UploadChanged
from windrow.resources.storage.object_store import ObjectStore

LOOK_AGAIN_SECONDS = 600.0
"""A trainer may change its key; the network's services look as often (grail-validation §17.3)."""


class NoTrainerBucket(WindrowError):
    """The trainer's bucket, where checkpoints are, cannot be found."""


@dataclass(frozen=True)
class CommittedMiners:
    """A `Miners` over buckets of their own.

    registered: SS58 addresses in the order of their numbers. open_bucket: of a hotkey, None where
    it has committed none that can be read. Both may raise ChainError.
    """

    registered: Callable[[], list[str]]
    open_bucket: Callable[[str], ObjectStore | None]

    def hotkeys(self) -> list[str]:
        return self.registered()

    def find(self, hotkey: str, window: int, deadline: float) -> FoundUpload:
        bucket = self.open_bucket(hotkey)
        if bucket is None:
            return FoundUpload(Upload(UploadState.MISSING), None)
        return SharedBucket(bucket, hotkey).find(hotkey, window, deadline)

    def fetch(self, hotkey: str, found: FoundUpload) -> bytes:
        bucket = self.open_bucket(hotkey)
        if bucket is None:
            raise UploadChanged(f"{hotkey} took back the commitment that says where its bucket is")
        return SharedBucket(bucket, hotkey).fetch(hotkey, found)


class TrainerBucket:
    """The bucket that the subnet's first hotkey has committed, looked up when it is used.

    Every method of an `ObjectStore`, read-only by the key it opens with. Raises NoTrainerBucket.
    """

    def __init__(
        self, miners: CommittedMiners, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._miners = miners
        self._clock = clock
        self._opened = -math.inf
        self._bucket: ObjectStore | None = None

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._bucket is None or self._clock() - self._opened > LOOK_AGAIN_SECONDS:
            trainer = self._miners.hotkeys()[0]
            self._bucket = self._miners.open_bucket(trainer)
            if self._bucket is None:
                raise NoTrainerBucket(
                    f"The trainer {trainer} has committed no bucket that can be read, so there is "
                    "no checkpoint. Check NETUID, and wait for the trainer."
                )
            self._opened = self._clock()
        return getattr(self._bucket, name)
