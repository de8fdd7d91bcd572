"""Short windows for a long time, with something killed every few seconds.

`python -m tests.faults.soak --seconds 1200` prints what was killed and what it cost, and ends with
1 if a group or a window was lost, an object was stored twice, or a service grew. The seed decides
what is killed; the same seed kills the same kinds of process in the same order.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.stack import LAYOUTS, Stack
from windrow.networks.grail.constants import WINDOW_BLOCKS

VICTIMS = {"run": 6, "service": 3, "everything": 1}
"""What is killed, by weight. In the second half only runs are, so that services grow old."""
GROWTH = 0.2
"""How much larger a service may be at the end than in the middle."""
SETTLE = 1.5
"""Windows that pass undisturbed at the end, so that every window killed in has closed."""


@dataclass
class Record:
    """What a soak saw. windows: from the first that opened to the last that closed."""

    seed: int
    layout: str
    seconds: float
    kills: dict[str, int] = field(default_factory=dict)
    windows: int = 0
    uploaded: int = 0
    explained: int = 0
    windows_without_a_row: list[int] = field(default_factory=list)
    groups_finished: int = 0
    groups_lost: int = 0
    uploads_doubled: int = 0
    megabytes: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def grown(self) -> list[str]:
        """Services that grew by more than GROWTH."""
        return [
            name for name, (first, last) in self.megabytes.items() if last > first * (1 + GROWTH)
        ]

    @property
    def sound(self) -> bool:
        lost = (self.windows_without_a_row, self.groups_lost, self.uploads_doubled, self.grown)
        return self.uploaded > 0 and not any(lost)


class Soak:
    """One soak of one stack."""

    def __init__(self, stack: Stack, seed: int, seconds: float, every: float) -> None:
        self.stack, self.seconds, self.every = stack, seconds, every
        self.random = random.Random(seed)
        self.record = Record(seed, stack.layout, seconds)
        self.first_window = stack.open_window()
        self.groups: set[Path] = set()
        self.stored: dict[Path, set[int]] = {}

    def run(self) -> Record:
        """Kill for the given time, let the last window close, and count."""
        began = time.monotonic()
        self.stack.start()
        try:
            middle: dict[str, float] = {}
            due = began + self.every
            while (now := time.monotonic()) < began + self.seconds:
                self._look()
                late = now - began > self.seconds / 2
                if late and not middle and now - began > self.seconds * 0.6:
                    middle = self._sizes()
                if now >= due:
                    self._kill("run" if late else None)
                    due += self.every
                time.sleep(0.2)
            last = self._sizes()
            self.record.megabytes = {n: (middle[n], last[n]) for n in middle if n in last}
            until = time.monotonic() + SETTLE * self.stack.window_seconds
            while time.monotonic() < until:
                self._look()
                time.sleep(0.2)
        finally:
            self.stack.kill()
        self._count()
        return self.record

    def _look(self) -> None:
        """Remember every finished group, and every object with the time it was stored."""
        home = self.stack.settings.home
        self.groups.update((home / "spool").rglob("group-*.parquet"))
        for path in (home / "bucket" / "grail" / "windows").glob("*.parquet"):
            self.stored.setdefault(path, set()).add(path.stat().st_mtime_ns)

    def _kill(self, kind: str | None) -> None:
        kind = kind or self.random.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        if kind == "everything":
            self.stack.kill()
            self.stack.start()
        elif kind == "service":
            names = sorted(self.stack.services)
            self.stack.restart(self.random.choice(names))
        else:
            doomed = self.stack.runs()
            if not doomed:
                kind = "nothing: no run was at work"
            else:
                self.stack.kill([self.random.choice(doomed)])
        self.record.kills[kind] = self.record.kills.get(kind, 0) + 1

    def _sizes(self) -> dict[str, float]:
        """Resident megabytes of each service with its helpers, without its runs."""
        return {name: size / 1e6 for name, size in self.stack.service_bytes().items()}

    def _count(self) -> None:
        closed = set(range(self.first_window, self.stack.open_window(), WINDOW_BLOCKS))
        uploaded = self.stack.uploads().keys() & closed
        explained = ({row["window_start"] for row in self.stack.faults()} & closed) - uploaded
        record = self.record
        record.windows = len(closed)
        record.uploaded = len(uploaded)
        record.explained = len(explained)
        record.windows_without_a_row = sorted(closed - uploaded - explained)
        record.groups_finished = len(self.groups)
        record.groups_lost = sum(not path.exists() for path in self.groups)
        record.uploads_doubled = sum(len(times) - 1 for times in self.stored.values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two kills")
    parser.add_argument("--window", type=float, default=60.0, help="seconds that a window lasts")
    parser.add_argument("--seed", type=int, default=None, help="a random one when not given")
    parser.add_argument("--layout", choices=LAYOUTS, default="services")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}, {given.layout}: {given.seconds:.0f} s, a kill every {given.every:.0f} s")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        stack = Stack(Path(folder), given.layout, given.window)
        record = Soak(stack, seed, given.seconds, given.every).run()
        if not record.sound:
            for row in stack.faults():
                print(row["window_start"], row["stage"], row["reason"], row["detail"], sep="\t")
    print(json.dumps({**asdict(record), "grown": record.grown, "sound": record.sound}, indent=2))
    return 0 if record.sound else 1


if __name__ == "__main__":
    sys.exit(main())
