"""One connection to a Bittensor chain: bounded waits, fallback endpoints, reconnects.

bittensor's own client waits a minute for an answer and reconnects for ever. Here every question
has a time limit; an endpoint that does not answer is left for the next one; and a chain that no
endpoint speaks for is `ChainSilent`, after `patience` seconds from the first unanswered question.
Questions are asked again. What was submitted never is.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import bittensor as bt

from windrow.resources.bittensor.endpoints import Endpoints, shown
from windrow.resources.chain import ChainSilent, UnreadableChain

T = TypeVar("T")

MAX_ANSWERS = 3
"""Errors answered to one question before they are believed: a node behind a balancer may lag."""

PROBE_SECONDS = 5.0
"""While the chain is silent, a question waits this long at most, and is asked this seldom."""

_NO_ANSWER = (bt.RpcConnectionError, bt.ConnectionNotReady, TimeoutError, OSError)
# A node that answers garbage fails in the client's decoding with one of these.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True)
class Session:
    """An open connection to one endpoint. url: without what may be a key."""

    url: str
    substrate: "_Substrate"
    client: bt.Client


class _Substrate(bt.RpcSubstrate):
    """The client's connection, which can also be hung up while it is being made.

    Cut short, `connect` forgets the socket it has opened, and the client redials it for minutes.
    """

    def __init__(self, url: str, archive: Sequence[str]) -> None:
        super().__init__(url, archive_endpoints=list(archive))
        self._made: list[Any] = []

    def _interface(self, endpoint: str, fallbacks: list[str]) -> Any:
        connection = super()._interface(endpoint, fallbacks)
        self._made.append(connection)
        return connection

    async def hang_up(self) -> None:
        """Close whatever was opened, within a second: what is broken may not be able to."""
        for connection in self._made:
            with contextlib.suppress(*_NO_ANSWER):
                async with asyncio.timeout(1.0):
                    await connection.close()


class BittensorConnection:
    """Asks a chain from any thread; nothing is opened before the first question.

    call_timeout: seconds a question may take. patience: seconds of silence until it is an error.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        call_timeout: float = 15.0,
        patience: float = 30.0,
        backoff: float = 0.5,
        probe: float = PROBE_SECONDS,
    ) -> None:
        self.endpoints = endpoints
        self.silent_since: float | None = None
        self._call_timeout, self._patience = call_timeout, patience
        self._backoff, self._probe = backoff, probe
        self._current = 0
        self._last_failure = 0.0
        self._reason = ""
        self._answered = False
        self._session: Session | None = None
        self._genesis = endpoints.genesis
        self._opening = asyncio.Lock()
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    @property
    def url(self) -> str:
        """The endpoint in use, without what may be a key."""
        return shown(self.endpoints.urls[self._current])

    def ask(self, what: str, question: Callable[[Session], Awaitable[T]]) -> T:
        """An answer, asked for again until `patience` ends. what: for the error, "block 7".

        Raises ChainSilent, UnreadableChain.
        """
        return self._wait(self._ask(what, question))

    def submit(self, what: str, work: Callable[[Session], Awaitable[T]], *, timeout: float) -> T:
        """Work that is done once, whatever happens to the connection.

        Raises ChainSilent when nobody can tell whether it was done.
        """
        return self._wait(self._once(what, work, timeout))

    def close(self) -> None:
        """Hang up; the next question connects again."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None and self._process == os.getpid():
            asyncio.run_coroutine_threadsafe(self._hang_up(self._session), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)

    async def _ask(self, what: str, question: Callable[[Session], Awaitable[T]]) -> T:
        if self._given_up() and time.monotonic() - self._last_failure < self._probe:
            raise self._silent(what)
        delay, answers, attempts = self._backoff, 0, 0
        while True:
            began, session = time.monotonic(), None
            # The first connection fetches the chain's metadata, which takes its time.
            hurried = self.silent_since is not None and self._answered
            limit = min(self._probe, self._call_timeout) if hurried else self._call_timeout
            try:
                async with asyncio.timeout(limit):
                    session = await self._open()
                    answer = await question(session)
            except _NO_ANSWER as error:
                attempts += 1
                await self._no_answer(session, began, error)
                if self._given_up() and attempts >= len(self.endpoints.urls):
                    raise self._silent(what) from error
            except (bt.BittensorError, *_GARBAGE) as error:
                answers += 1
                if answers >= MAX_ANSWERS:
                    raise UnreadableChain(
                        f"{self.url} answers the question for {what} with "
                        f"{type(error).__name__}: {_short(error)}. Try another endpoint "
                        "(BT_CHAIN_ENDPOINT); if the state is pruned, ask an archive node."
                    ) from error
                if len(self.endpoints.urls) > 1:
                    await self._leave(session)
            else:
                self.silent_since, self._answered = None, True
                return answer
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._probe)

    async def _once(self, what: str, work: Callable[[Session], Awaitable[T]], timeout: float) -> T:
        # Connecting is a question like any other; only the work itself is never repeated.
        await self._ask(what, _nothing)
        session = await self._open()
        try:
            async with asyncio.timeout(timeout):
                return await work(session)
        except _NO_ANSWER as error:
            self._reason = _short(error)
            await self._leave(session)
            raise ChainSilent(
                f"{session.url} did not say what became of {what}: {self._reason}."
            ) from error

    async def _open(self) -> Session:
        async with self._opening:
            if self._session is None:
                url = self.endpoints.urls[self._current]
                substrate = _Substrate(url, self.endpoints.archive)
                try:
                    await substrate.connect()
                    await self._require_same_chain(url, substrate)
                except BaseException:
                    await substrate.hang_up()
                    raise
                self._session = Session(shown(url), substrate, bt.Client(url, substrate=substrate))
            return self._session

    async def _require_same_chain(self, url: str, substrate: bt.RpcSubstrate) -> None:
        genesis = await substrate.block_hash(0)
        if self._genesis is None:
            self._genesis = genesis
        if genesis != self._genesis:
            raise ValueError(f"{shown(url)} is another chain, it begins with {genesis}")

    async def _no_answer(self, session: Session | None, began: float, error: Exception) -> None:
        self._last_failure = time.monotonic()
        self.silent_since = self.silent_since or began
        self._reason = _short(error) or "no answer in time"
        await self._leave(session)

    async def _leave(self, session: Session | None) -> None:
        """Hang up and turn to the next endpoint, unless another question did so already."""
        if session is None or session is self._session:
            held, self._session = self._session, None
            self._current = (self._current + 1) % len(self.endpoints.urls)
            await self._hang_up(held)

    async def _hang_up(self, session: Session | None) -> None:
        if session is not None:
            await session.substrate.hang_up()

    def _given_up(self) -> bool:
        since = self.silent_since
        return since is not None and time.monotonic() - since >= self._patience

    def _silent(self, what: str) -> ChainSilent:
        names = ", ".join(shown(url) for url in self.endpoints.urls)
        quiet = time.monotonic() - (self.silent_since or time.monotonic())
        return ChainSilent(
            f"No answer for {what}: the chain has been silent for {quiet:.0f} s at {names} "
            f"({self._reason}). It is asked again; check this machine's network, or set another "
            "BT_CHAIN_ENDPOINT."
        )

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        """This process's event loop; a forked child has no thread to run the parent's."""
        with self._starting:
            if self._loop is None or self._process != os.getpid():
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                self._session, self._opening = None, asyncio.Lock()
                threading.Thread(
                    target=self._loop.run_forever, name="bittensor", daemon=True
                ).start()
            return self._loop


async def _nothing(_: Session) -> None:
    return None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
