"""Calls of `generate` on their way: how they are cancelled, and told from hung ones."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from windrow.engine.ports import GenerationCancelled
from windrow.resources.generation.client import Flight, GenerationServerError
from windrow.resources.generation.dispatch import GenerationServer

SILENT_PROBES: Final = 2


class ServerHung(GenerationServerError):
    """A server holds a request and does not answer its health check any more."""


class Call:
    """One call of `generate`, with the requests it has at servers."""

    def __init__(self) -> None:
        self.told_to_stop = threading.Event()
        self._lock = threading.Lock()
        self._flights: set[Flight] = set()

    @contextmanager
    def flight(self) -> Iterator[Flight]:
        flight = Flight()
        with self._lock:
            self._flights.add(flight)
            if self.told_to_stop.is_set():
                flight.cut(_cancelled())
        try:
            yield flight
        finally:
            with self._lock:
                self._flights.discard(flight)

    def cancel(self) -> None:
        with self._lock:
            self.told_to_stop.set()
            for flight in self._flights:
                flight.cut(_cancelled())


def _cancelled() -> GenerationCancelled:
    return GenerationCancelled("the generation was cancelled while a server worked on it")


@contextmanager
def watched(server: GenerationServer, flight: Flight, every: float) -> Iterator[None]:
    """Cut a flight short when its server stops answering health checks: hung is not slow."""
    done = threading.Event()

    def watch() -> None:
        silent = 0
        while not done.wait(every):
            try:
                server.probe()
                silent = 0
            except GenerationServerError as error:
                silent += 1
                if silent >= SILENT_PROBES:
                    flight.cut(ServerHung(f"{server.name} holds a request and is silent: {error}"))
                    return

    threading.Thread(target=watch, name=f"watch {server.name}", daemon=True).start()
    try:
        yield
    finally:
        done.set()
