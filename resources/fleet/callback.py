"""Tells nodes which address they come from, and remembers it, for `same_address_out`.

What counts is the peer of the connection, and nothing that a request says of itself, so no proxy
may stand before the listener. A request must bear a salt, which nobody can guess, which is good
once, and only as long as its question is open; anything else gets 404. The listener is up while a
question is open. Salts are files, so whichever process of this machine is given a connection can
answer it: all of them listen at the same port.
"""

import asyncio
import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from windrow import WindrowError
from windrow.engine.fleet.frames import BadFrame, from_json, to_json
from windrow.engine.fleet.preflight_looked import Arrival
from windrow.networks.chutes.node_resources import address_token
from windrow.resources.files import naming_disk_errors
from windrow.resources.guarded_server import Gate

REQUEST_SECONDS: Final = 5.0
MOST_REQUEST: Final = 2048
MOST_AT_ONCE: Final = 64
FORGOTTEN_SECONDS: Final = 3600.0
_REQUEST = re.compile(rb"GET /([0-9a-f]{32}) HTTP/1\.[01]\r\n")


class CallbackTaken(WindrowError):
    """Nothing can listen where nodes are to call back."""


@dataclass(frozen=True)
class Question:
    """A question that is open. urls: in the order in which the node is to fetch them."""

    urls: tuple[str, ...]
    _salts: tuple[str, ...]
    _secret: str
    _folder: Path

    def arrivals(self, address: str, said: Sequence[str | None]) -> tuple[Arrival, ...]:
        """What came. address: where it should come from. said: what the node was told, by URL."""
        return tuple(
            Arrival(
                came_from=self._came_from(salt),
                expected=address_token(address, self._secret, salt),
                said=token,
            )
            for salt, token in zip(self._salts, said, strict=True)
        )

    def _came_from(self, salt: str) -> str | None:
        try:
            return (self._folder / f"{salt}.seen").read_text() or None
        except FileNotFoundError:
            return None


class Callback:
    """Questions to nodes, and the listener they are answered through."""

    def __init__(
        self, urls: Sequence[str], folder: Path, clock: Callable[[], float] = time.time
    ) -> None:
        """urls: `http://ADDRESS:PORT` of this machine. folder: where salts lie; others' own too."""
        self.urls = tuple(urls)
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._open = 0
        self._listener: _Listener | None = None

    @property
    def hosts(self) -> frozenset[str]:
        """Addresses at which this machine is called."""
        return frozenset(urlsplit(url).hostname or "" for url in self.urls)

    @contextlib.contextmanager
    def question(self, rounds: int, seconds: float) -> Iterator[Question]:
        """Salts for so many rounds over all URLs, good for so long. Raises CallbackTaken."""
        secret = secrets.token_hex(16)
        urls = self.urls * rounds
        salts = tuple(secrets.token_hex(16) for _ in urls)
        record = to_json({"secret": secret, "until": self._clock() + seconds})
        with naming_disk_errors(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget()
            for salt in salts:
                (self._folder / salt).write_bytes(record)
        try:
            with self._listening():
                asked = tuple(f"{url}/{salt}" for url, salt in zip(urls, salts, strict=True))
                yield Question(asked, salts, secret, self._folder)
        finally:
            for salt in salts:
                for name in (salt, f"{salt}.seen"):
                    (self._folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        with self._lock:
            if self._listener is None:
                self._listener = _Listener(self.urls, self._answer)
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self._listener.stop()
                    self._listener = None

    def _answer(self, salt: str, peer: str) -> str | None:
        """The token of an address, once for each salt."""
        try:
            record = from_json((self._folder / salt).read_bytes())
            if self._clock() > float(record["until"]):
                return None
            with (self._folder / f"{salt}.seen").open("x") as seen:
                seen.write(peer)
        except (OSError, BadFrame, KeyError):
            return None  # unknown, or used
        return address_token(peer, str(record["secret"]), salt)

    def _forget(self) -> None:
        """Remove what a process left that was killed."""
        before = time.time() - FORGOTTEN_SECONDS
        for file in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime < before:
                    file.unlink()


class _Listener:
    """An HTTP listener in a thread of its own, that reads one small request a connection."""

    def __init__(self, urls: Sequence[str], answer: Callable[[str, str], str | None]) -> None:
        self._answer = answer
        self._gate = Gate(MOST_AT_ONCE, MOST_AT_ONCE // 4)
        with contextlib.ExitStack() as opened:
            self._sockets = [
                opened.enter_context(_bound(*where))
                for where in sorted({_address(url) for url in urls})
            ]
            opened.pop_all()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="callback")
        self._thread.daemon = True
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close the port."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen(ready))

    async def _listen(self, ready: threading.Event) -> None:
        servers = [
            await asyncio.start_server(self._serve, sock=listening, limit=MOST_REQUEST)
            for listening in self._sockets
        ]
        ready.set()
        await self._stop.wait()
        for server in servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _Caller(writer)
        peer = writer.get_extra_info("peername")
        try:
            if peer and self._gate.admit(caller, peer[0]):
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(self._response(await reader.readuntil(b"\r\n\r\n"), writer))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # too slow, too much, or gone: a stranger's business
        finally:
            self._gate.leave(caller)
            writer.close()

    def _response(self, request: bytes, writer: asyncio.StreamWriter) -> bytes:
        asked, peer = _REQUEST.match(request), writer.get_extra_info("peername")
        token = None
        if asked and peer:  # whoever hung up at once has none
            token = self._answer(asked[1].decode(), peer[0])
        status, body = ("404 Not Found", "") if token is None else ("200 OK", token)
        return (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}"
        ).encode()


@dataclass(eq=False)
class _Caller:
    """A connection, which is over as soon as its request is whole."""

    writer: asyncio.StreamWriter
    unfinished: bool = True

    def drop(self) -> None:
        self.writer.transport.abort()


def _address(url: str) -> tuple[str, int]:
    """Where to listen: everywhere, for the address outside need not be this machine's own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    # Who is reached through the loopback only is not to be reached by others.
    return (host if host.startswith("127.") else "0.0.0.0", parts.port or 0)  # noqa: S104 - as said


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), reuse_port=True, backlog=MOST_AT_ONCE)
    except (OSError, OverflowError) as error:
        raise CallbackTaken(
            f"nothing can listen at {host}:{port} ({error}): end what uses the port, or name "
            "another one in WINDROW_CALLBACK"
        ) from None
