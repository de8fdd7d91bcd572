"""When to try again, and when no longer: exponential waits with jitter, inside a time that ends."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FIRST_WAIT_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 10.0

_uniform = secrets.SystemRandom().uniform


@dataclass
class Patience:
    """The time one operation has, all its repetitions and the waits between them included.

    seconds: until it ends. clock, sleep: of this machine; tests hand in their own.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _end: float = field(init=False)
    _waits: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._end = self.clock() + self.seconds

    @property
    def left(self) -> float:
        """Seconds until it ends, never less than 0."""
        return max(0.0, self._end - self.clock())

    def wait(self, needed: float = 0.0) -> bool:
        """Wait before the next attempt, twice as long each time, give or take half.

        needed: seconds the attempt takes. False, at once, where it could not end in time.
        """
        wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self._waits) * _uniform(0.5, 1.5)
        if wait + needed >= self.left:
            return False
        self._waits += 1
        self.sleep(wait)
        return True
