"""Turns on GPUs, between processes: two windows, or mining and verification, never share a card.

A lock a card, on a file below the home folder, gone with the process that holds it: unlike a slot
of one of Dagster's pools, which a killed run keeps until a daemon takes it away. Mining waits for
another window or a verification to end; a verification waits a little, and asks again another
time. A server or worker that outlives its window holds no lock: a verification looks for those as
well, and mining, which uses them, does not.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from windrow import WindrowError
from windrow.engine.fleet.gpu_facts import read_driver
from windrow.resources.gpu_keepers import Keeper
from windrow.resources.locks import file_lock

LOOK_AGAIN: Final = 0.2
MINING_WAITS: Final = 2 * 3600.0
"""Longer than any verification of a card takes, or another window."""


class GpuTaken(WindrowError):
    """Something else works on a GPU, and went on longer than one could wait."""


class GpuTurns:
    """GPUs of this machine that only one at a time may use.

    entries: as in CUDA_VISIBLE_DEVICES, indices or uuids; nobody is asked before the first turn.
    keepers: tells what keeps memory of GPUs without a lock, where that is in the way.
    """

    def __init__(
        self,
        folder: Path,
        entries: Sequence[str],
        keepers: Callable[[], Iterable[Keeper]] | None = None,
    ) -> None:
        self._folder = folder
        self._entries = tuple(entries)
        self._keepers = keepers

    @cached_property
    def gpus(self) -> tuple[str, ...]:
        """One name a card, whoever asks: its uuid, for two processes may count them differently."""
        return self._named(self._entries)

    @contextlib.contextmanager
    def taken(self, wait: float = MINING_WAITS) -> Iterator[None]:
        """Hold all of them. Raises GpuTaken after `wait` seconds, and holds none; at once where
        something keeps their memory, for that may go on for long."""
        until = time.monotonic() + wait
        with contextlib.ExitStack() as stack:
            for gpu in self.gpus:  # in one order, so that two who want both never wait for ever
                self._take(stack, gpu, until)
            self._refuse_kept()  # with the locks held, so nothing starts there from now on
            yield

    def _named(self, entries: Sequence[str]) -> tuple[str, ...]:
        if not entries:
            return ()
        uuids = {str(gpu.index): gpu.uuid for gpu in read_driver().gpus}
        return tuple(sorted({uuids.get(entry, entry) for entry in entries}))

    def _refuse_kept(self) -> None:
        if self._keepers is None or not self._entries:
            return
        for keeper in self._keepers():
            kept = self.gpus if keeper.gpus is None else self._named(keeper.gpus)
            if shared := sorted({*kept} & {*self.gpus}):
                raise GpuTaken(
                    f"{keeper.what} keeps memory of GPU {', '.join(shared)} for the next window; "
                    f"{keeper.remedy}"
                )

    def _take(self, stack: contextlib.ExitStack, gpu: str, until: float) -> None:
        path = self._folder / f"gpu-{gpu}.lock"
        while True:
            try:
                stack.enter_context(file_lock(path, wait=False))
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise GpuTaken(
                        f"GPU {gpu} is in use by mining or by a verification of this machine "
                        "(its lock is taken); this one asks again later"
                    ) from None
                time.sleep(LOOK_AGAIN)
            else:
                return
