"""The threads that the stages of a window run on, and what comes back from them."""

import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

_CANCEL_SECONDS: Final = 0.1

Item = TypeVar("Item")


@dataclass
class Task(Generic[Item]):
    """One item at one stage. seconds: how long it was at work; error: why it failed."""

    stage: str
    item: Item
    seconds: float = 0.0
    error: Exception | None = None


class Stages(Generic[Item]):
    """A pool of threads a stage. One thread, the owner's, submits and takes what comes back."""

    def __init__(self, lanes: Mapping[str, int]) -> None:
        """lanes: threads by stage; a stage with none takes no work."""
        self._pools = {
            stage: ThreadPoolExecutor(count, thread_name_prefix=stage)
            for stage, count in lanes.items()
            if count
        }
        self._at_work: set[Future[None]] = set()
        self._back: queue.SimpleQueue[tuple[Task[Item], Future[None]]] = queue.SimpleQueue()

    def submit(self, stage: str, item: Item, work: Callable[[Item], None]) -> None:
        """Have a thread of the stage do the work on an item."""
        task = Task(stage, item)

        def timed() -> None:
            began = time.perf_counter()
            try:
                work(item)
            finally:
                task.seconds = time.perf_counter() - began

        future = self._pools[stage].submit(timed)
        self._at_work.add(future)
        future.add_done_callback(lambda done: self._back.put((task, done)))

    def next_done(self, timeout: float | None) -> Task[Item] | None:
        """The next task that ended, waiting for it; None after `timeout` seconds without one.

        Raises what a thread raised where that is no Exception: an interrupt ends the run.
        """
        try:
            task, future = self._back.get(timeout=timeout)
        except queue.Empty:
            return None
        self._at_work.discard(future)
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        task.error = error
        return task

    def stop(self, cancel: Callable[[], None]) -> None:
        """Leave no thread at work. cancel: has the calls in flight stop."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        # Again and again: a call may have been about to begin when the others were told.
        while not all(future.done() for future in self._at_work):
            cancel()
            time.sleep(_CANCEL_SECONDS)
