"""Which generation server takes the next sequences, and what becomes of a broken one."""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from windrow import WindrowError
from windrow.engine.ports import Completion, GenerationCancelled
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.generation.client import Flight, GenerationServerError
from windrow.resources.generation.requests import SampleRequest, WrongWeights

MAX_STRIKES: Final = 3
"""Failures in a row after which a server that still calls itself healthy is taken for broken."""

_log = logging.getLogger(__name__)


class NoServerLeft(WindrowError):
    """Every generation server is broken, and none could be mended."""


class GenerationServer(Protocol):
    """One server, of whatever make; its methods are called from several threads at once.

    sequences_a_request: most sequences that one request to it may hold; None: any number.
    max_context, reproducible, weights_proof: known once `load` has succeeded; reproducible: equal
    seeds give equal completions; weights_proof: what shows which weights it holds, "none" where
    nothing does.
    """

    @property
    def name(self) -> str: ...
    @property
    def sequences_a_request(self) -> int | None: ...
    @property
    def max_context(self) -> int: ...
    @property
    def reproducible(self) -> bool: ...
    @property
    def weights_proof(self) -> str: ...

    def load(self, checkpoint: VerifiedCheckpoint) -> object:
        """Have it run, answer, and sample with these weights, whatever state it is in."""
        ...

    def sample(self, request: SampleRequest, flight: Flight) -> list[Completion]:
        """Completions of a request, all checked."""
        ...

    def abandon(self, request: SampleRequest) -> None:
        """Tell it that nobody waits for a request any more."""
        ...

    def probe(self) -> None:
        """Raises GenerationServerError unless it is well."""
        ...


@dataclass
class _Place:
    """A server and how it stands. broken: why it is not used; mending: someone is at it."""

    server: GenerationServer
    in_flight: int = 0
    strikes: int = 0
    broken: WindrowError | None = None
    mending: bool = False


class Dispatch:
    """Hands out seats at the least loaded server; a broken one is mended while others work."""

    def __init__(
        self,
        servers: Sequence[GenerationServer],
        max_in_flight: int,
        mend: Callable[[GenerationServer], object],
    ) -> None:
        """max_in_flight: sequences at one server; mend: makes a server usable, or raises."""
        self._places = [_Place(server) for server in servers]
        self._max_in_flight = max_in_flight
        self._mend = mend
        self._changed = threading.Condition()

    @contextmanager
    def seat(
        self,
        sequences: int,
        told_to_stop: threading.Event,
        tried: Collection[GenerationServer] = (),
    ) -> Iterator[GenerationServer]:
        """The least loaded server with room for so many sequences; those tried come last.

        More sequences than a server takes at once get one to themselves.
        Raises NoServerLeft, GenerationCancelled.
        """
        with self._changed:
            while True:
                if told_to_stop.is_set():
                    raise GenerationCancelled("the generation was cancelled before it was sent")
                free = [
                    place
                    for place in self._places
                    if place.broken is None
                    and (place.in_flight == 0 or self._room(place) >= sequences)
                ]
                if free:
                    break
                if all(place.broken and not place.mending for place in self._places):
                    raise NoServerLeft(
                        "no generation server is left: "
                        + "; ".join(f"{p.server.name}: {p.broken}" for p in self._places)
                    )
                self._changed.wait()
            place = min(free, key=lambda each: (each.server in tried, each.in_flight))
            place.in_flight += sequences
        try:
            yield place.server
        finally:
            with self._changed:
                place.in_flight -= sequences
                self._changed.notify_all()

    def wake(self) -> None:
        """Have those who wait for a seat look again."""
        with self._changed:
            self._changed.notify_all()

    def served(self, server: GenerationServer) -> None:
        """A server did well."""
        with self._changed:
            self._place(server).strikes = 0

    def struck(self, server: GenerationServer, error: GenerationServerError) -> None:
        """A server failed: it is mended if it is not well, or has failed too often in a row."""
        place = self._place(server)
        with self._changed:
            place.strikes += 1
            broken = place.strikes >= MAX_STRIKES or isinstance(error, WrongWeights)
        if not broken:
            try:
                server.probe()
            except GenerationServerError:
                broken = True
        if broken:
            self.broke(server, error)

    def broke(self, server: GenerationServer, error: WindrowError) -> None:
        """Take a server out of use and mend it in the background."""
        place = self._place(server)
        with self._changed:
            if place.broken is not None:
                return
            place.broken, place.mending = error, True
        _log.warning("%s is taken out of use and mended: %s", server.name, error)
        threading.Thread(
            target=self._mended, args=[place], name=f"mend {server.name}", daemon=True
        ).start()

    def _mended(self, place: _Place) -> None:
        outcome = place.broken
        try:
            self._mend(place.server)
            outcome = None
            _log.warning("%s works again", place.server.name)
        except WindrowError as error:
            outcome = error
            _log.error("%s cannot be mended: %s", place.server.name, error)
        finally:
            with self._changed:
                place.broken, place.mending, place.strikes = outcome, False, 0
                self._changed.notify_all()

    def _place(self, server: GenerationServer) -> _Place:
        return next(place for place in self._places if place.server is server)

    def _room(self, place: _Place) -> int:
        return self._max_in_flight - place.in_flight
