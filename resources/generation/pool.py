"""Sampling by servers: several of them, many sequences in flight, none of them trusted."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.ports import Completion, GenerationCancelled
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.generation.calls import Call, watched
from windrow.resources.generation.client import (
    GenerationServerError,
    RequestRefused,
    ServerUnreachable,
    Unauthorized,
)
from windrow.resources.generation.dispatch import Dispatch, GenerationServer, NoServerLeft
from windrow.resources.generation.prompt import check_prompt
from windrow.resources.generation.requests import SampleRequest
from windrow.resources.models.config import read_config

ATTEMPTS: Final = 3
PROBE_EVERY_SECONDS: Final = 10.0
RETRY_PAUSE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class GenerationFailed(WindrowError):
    """A group could not be sampled, by any server and after every attempt."""


class GenerationServers:
    """The generation servers of a miner; they outlive windows, and may outlive the process."""

    def __init__(
        self,
        servers: Sequence[GenerationServer],
        *,
        groups_in_flight: int = 1,
        max_in_flight: int = 48,
        max_context: int | None = None,
        probe_every: float = PROBE_EVERY_SECONDS,
        retry_pause: float = RETRY_PAUSE_SECONDS,
    ) -> None:
        """groups_in_flight: groups worth asking of all servers at once. max_in_flight: sequences at
        one server at once. max_context: lowers what model and servers take.
        probe_every: seconds between health checks of a server that has requests. retry_pause:
        seconds before a server is asked again what it failed at, and twice that the next time.
        """
        if not servers:
            raise NoServerLeft(
                "no generation server is configured; name one, or let one be started"
            )
        self._servers = tuple(servers)
        self._groups_in_flight = groups_in_flight
        self._max_in_flight = max_in_flight
        self._max_context = max_context
        self._probe_every = probe_every
        self._retry_pause = retry_pause
        self._current: VerifiedCheckpoint | None = None

    def generator(self, checkpoint: VerifiedCheckpoint, eos_token_id: int) -> "ServedGenerator":
        """Samples from this checkpoint with every server that could be made to hold it.

        eos_token_id: the tokenizer's. All servers load at once; one that fails is tried again in
        the background. Raises NoServerLeft when none could load it.
        """
        self._current = checkpoint
        with ThreadPoolExecutor(len(self._servers)) as pool:
            failures = list(pool.map(lambda server: _loaded(server, checkpoint), self._servers))
        if all(failures):
            raise NoServerLeft(
                f"no generation server could load checkpoint {checkpoint.metadata.window}: "
                + "; ".join(
                    f"{server.name}: {failure}"
                    for server, failure in zip(self._servers, failures, strict=True)
                )
            )
        config = read_config(checkpoint.directory)
        contexts = [
            server.max_context
            for server, failure in zip(self._servers, failures, strict=True)
            if failure is None
        ]
        limit = self._max_context or config["max_position_embeddings"]
        generator = ServedGenerator(
            self._servers,
            checkpoint,
            mend=self._mend,
            vocab_size=config["vocab_size"],
            eos_token_id=eos_token_id,
            max_context=min(limit, config["max_position_embeddings"], *contexts),
            lanes=self._groups_in_flight,
            max_in_flight=self._max_in_flight,
            probe_every=self._probe_every,
            retry_pause=self._retry_pause,
        )
        for server, failure in zip(self._servers, failures, strict=True):
            if failure is not None:
                generator.dispatch.broke(server, failure)
        return generator

    def _mend(self, server: GenerationServer) -> None:
        """Make a server usable for the checkpoint last asked for, not a generator's older one."""
        if self._current is not None:
            server.load(self._current)


def _loaded(server: GenerationServer, checkpoint: VerifiedCheckpoint) -> WindrowError | None:
    try:
        server.load(checkpoint)
    except WindrowError as error:
        return error
    return None


class ServedGenerator:
    """An `engine.ports.Generator` that asks servers; made by `GenerationServers.generator`."""

    def __init__(
        self,
        servers: Sequence[GenerationServer],
        checkpoint: VerifiedCheckpoint,
        *,
        mend: Callable[[GenerationServer], object],
        vocab_size: int,
        eos_token_id: int,
        max_context: int,
        lanes: int,
        max_in_flight: int,
        probe_every: float,
        retry_pause: float,
    ) -> None:
        self.checkpoint = checkpoint
        self.dispatch = Dispatch(servers, max_in_flight, mend)
        self._servers = tuple(servers)
        self._vocab_size = vocab_size
        self._eos_token_id = eos_token_id
        self._max_context = max_context
        self._lanes = lanes
        self._probe_every = probe_every
        self._retry_pause = retry_pause
        chunks = [server.sequences_a_request for server in servers]
        self._chunk = min([max_in_flight, *(size for size in chunks if size is not None)])
        self._lock = threading.Lock()
        self._calls: set[Call] = set()

    @property
    def lanes(self) -> int:
        """Calls worth having in flight at once."""
        return self._lanes

    @property
    def reproducible(self) -> bool:
        """Whether equal seeds give equal completions; else a window cannot be sampled again."""
        return all(server.reproducible for server in self._servers)

    @property
    def weights_proof(self) -> str:
        """What shows which weights each server holds."""
        return ",".join(server.weights_proof for server in self._servers)

    def generate(
        self, prompt: NDArray[np.int32], seeds: Sequence[int], policy: GenerationPolicy
    ) -> list[Completion]:
        """One completion per seed, in order; a seed is sent to a server that honours it.

        prompt: int32 [P]; seeds: 0 <= seed < 2^63.
        Raises InvalidPrompt, PromptTooLong, GenerationFailed, NoServerLeft, GenerationCancelled,
        RequestRefused, Unauthorized.
        """
        check_prompt(
            prompt,
            policy,
            vocab_size=self._vocab_size,
            max_context=self._max_context,
            checkpoint_window=self.checkpoint.metadata.window,
        )
        requests = [
            SampleRequest.of(
                prompt,
                seeds[start : start + self._chunk],
                policy,
                vocab_size=self._vocab_size,
                eos_token_id=self._eos_token_id,
            )
            for start in range(0, len(seeds), self._chunk)
        ]
        with self._call() as call:
            if len(requests) <= 1:
                parts = [self._served(call, request) for request in requests]
            else:
                parts = self._all_served(call, requests)
        return [completion for part in parts for completion in part]

    def cancel(self) -> None:
        """Stop the calls in flight, here and at the servers; later calls work again."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        self.dispatch.wake()

    @contextmanager
    def _call(self) -> Iterator[Call]:
        call = Call()
        with self._lock:
            self._calls.add(call)
        try:
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)

    def _all_served(self, call: Call, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Requests of one group together; the first that fails ends the others."""
        with ThreadPoolExecutor(len(requests)) as pool:
            futures = [pool.submit(self._served, call, request) for request in requests]
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in ended:
                if future.exception() is not None:
                    call.cancel()
                    self.dispatch.wake()
                    future.result()
            return [future.result() for future in futures]

    def _served(self, call: Call, request: SampleRequest) -> list[Completion]:
        reasons: list[str] = []
        tried: list[GenerationServer] = []
        for attempt in range(ATTEMPTS):
            asked_all = len(tried) >= len(self._servers)
            if asked_all and call.told_to_stop.wait(attempt * self._retry_pause):
                break
            with self.dispatch.seat(len(request.seeds), call.told_to_stop, tried) as server:
                try:
                    completions = self._sampled(call, server, request)
                except (RequestRefused, Unauthorized):
                    raise
                except GenerationServerError as error:
                    failure = error
                else:
                    self.dispatch.served(server)
                    return completions
            reasons.append(f"{server.name}: {type(failure).__name__}: {failure}")
            _log.warning("Attempt %d of %d failed: %s", attempt + 1, ATTEMPTS, reasons[-1])
            tried.append(server)
            self.dispatch.struck(server, failure)
            request = request.renamed()
        if call.told_to_stop.is_set():
            raise GenerationCancelled("the generation was cancelled between two attempts")
        raise GenerationFailed(f"{ATTEMPTS} attempts failed: " + "; ".join(reasons))

    def _sampled(
        self, call: Call, server: GenerationServer, request: SampleRequest
    ) -> list[Completion]:
        try:
            with call.flight() as flight, watched(server, flight, self._probe_every):
                return server.sample(request, flight)
        except ServerUnreachable:
            raise
        except WindrowError:
            # Whatever went wrong here, the server may still be at work on it.
            try:
                server.abandon(request)
            except GenerationServerError as error:
                _log.warning("%s was not told to give a request up: %s", server.name, error)
            raise
