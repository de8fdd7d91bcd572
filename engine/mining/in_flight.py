"""Calls that another thread may tell to stop."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """The calls of one part that are at work right now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: set[threading.Event] = set()

    @contextmanager
    def call(self) -> Iterator[threading.Event]:
        """For the time of a call: an event that is set once the call has been told to stop."""
        told = threading.Event()
        with self._lock:
            self._told.add(told)
        try:
            yield told
        finally:
            with self._lock:
                self._told.discard(told)

    def cancel(self) -> None:
        """Tell every call at work to stop; later ones are not concerned."""
        with self._lock:
            for told in self._told:
                told.set()
