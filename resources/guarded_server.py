"""An HTTP server that strangers cannot fill: bounded connections, headers, bodies and time.

An application only sees requests whose headers came whole, in time and small. Where there are too
many connections, the oldest whose request is not whole makes room, first of the address that has
the most: who asks quickly is answered, however many others hold connections open.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from windrow import WindrowError

HEADER_BYTES: Final = 64 << 10
HEADER_SECONDS: Final = 5.0
STOP_SECONDS: Final = 10
BACKLOG: Final = 256
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that tell one network of a provider from another."""


class AddressTaken(WindrowError):
    """A server cannot listen where it should."""


class TlsFilesUnusable(WindrowError):
    """A certificate and its key cannot be used."""


class Connection(Protocol):
    """What a gate needs of a connection."""

    @property
    def unfinished(self) -> bool:
        """Whether its request is not whole, so that nobody works on it."""
        ...

    def drop(self) -> None:
        """End it at once."""
        ...


class Gate:
    """Who may connect: at most `total` at once, and at most `per_address` of one address."""

    def __init__(self, total: int = 256, per_address: int = 64) -> None:
        self._total, self._per_address = total, per_address
        self._open: dict[Connection, str] = {}  # the oldest first

    def admit(self, newcomer: Connection, address: str) -> bool:
        """Whether a newcomer has a place, which an unfinished connection may have to leave."""
        address = _network(address)
        counts = Counter(self._open.values())
        if counts[address] >= self._per_address and not self._make_room(address):
            return False
        if len(self._open) >= self._total and not self._make_room(counts.most_common(1)[0][0]):
            return False
        self._open[newcomer] = address
        return True

    def leave(self, connection: Connection) -> None:
        """A connection is over."""
        self._open.pop(connection, None)

    def _make_room(self, address: str) -> bool:
        for connection, its in self._open.items():
            if its == address and connection.unfinished:
                self.leave(connection)
                connection.drop()
                return True
        return False


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))


class Bodies:
    """Bodies of requests that are being read: together at most so many bytes.

    Where they are too many, the oldest is given up.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._reading: dict[_Body, None] = {}  # the oldest first

    async def read(self, request: Request, *, most: int, seconds: float) -> bytes:
        """A request's body. Raises BodyTooLarge, BodyTooSlow, or BodyGivenUp."""
        async with self._entered(seconds) as body:
            try:
                async for part in request.stream():
                    if body.size + len(part) > most:
                        raise BodyTooLarge(f"at most {most} bytes are read")
                    self._take(body, part)
            except ClientDisconnect as error:
                raise BodyGivenUp("the connection was closed") from error
            return b"".join(body.parts)

    @contextlib.asynccontextmanager
    async def _entered(self, seconds: float) -> "AsyncIterator[_Body]":
        body = _Body()
        self._reading[body] = None
        try:
            async with asyncio.timeout(seconds) as body.time:
                yield body
        except TimeoutError as error:
            if body.given_up:
                raise BodyGivenUp("too many requests are being sent at once") from error
            raise BodyTooSlow(f"a request arrives within {seconds:g} s") from error
        finally:
            self._reading.pop(body, None)
            self._size -= body.size

    def _take(self, body: "_Body", part: bytes) -> None:
        body.parts.append(part)
        body.size += len(part)
        self._size += len(part)
        for oldest in list(self._reading):
            if self._size <= self._most:
                return
            if oldest is not body:
                self._give_up(oldest)

    def _give_up(self, body: "_Body") -> None:
        self._reading.pop(body)
        self._size -= body.size
        body.parts, body.size, body.given_up = [], 0, True
        if body.time is not None:
            body.time.reschedule(0)


class _Body:
    """One body on its way."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.given_up = False
        self.time: asyncio.Timeout | None = None


class BodyRefused(WindrowError):
    """A body that is not read to its end."""

    status = 400


class BodyTooLarge(BodyRefused):
    """A body of too many bytes."""

    status = 413


class BodyTooSlow(BodyRefused):
    """A body that did not arrive in time."""

    status = 408


class BodyGivenUp(BodyRefused):
    """A body that made room for others, or whose sender hung up."""

    status = 503


@dataclass(frozen=True)
class TlsFiles:
    """Where a certificate (with its chain) and its key lie, as PEM."""

    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """Raises TlsFilesUnusable."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise TlsFilesUnusable(
                f"The certificate {self.certificate} and the key {self.key} cannot be used: "
                f"{error}. Give PEM files that belong together and need no password."
            ) from None
        return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")


def guarded_server(
    app: ASGIApp, *, gate: Gate | None = None, tls: TlsFiles | None = None
) -> uvicorn.Server:
    """A server for an application. Raises TlsFilesUnusable."""
    config = uvicorn.Config(
        app,
        http=_protocol(gate or Gate(), tls.context() if tls else None),
        loop="asyncio",  # uvloop reads before a handshake can begin
        ws="none",
        lifespan="off",
        log_level="critical",  # whatever strangers send would fill the log
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return uvicorn.Server(config)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one. Raises AddressTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise AddressTaken(
            f"Nothing can listen at {host}:{port} ({error}). Give another --port, or the address "
            "of an interface of this machine as --host."
        ) from None


def _protocol(gate: Gate, tls: ssl.SSLContext | None) -> type[asyncio.Protocol]:
    class Guarded(_GuardedProtocol):
        _gate = gate
        _tls = tls

    return Guarded


class _GuardedProtocol(H11Protocol):
    """One connection. TLS begins here, so that a connection counts before its handshake ends."""

    _gate: Gate
    _tls: ssl.SSLContext | None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._link: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._early = b""

    @property
    def unfinished(self) -> bool:
        return self.cycle is None or self.cycle.more_body or self.cycle.response_complete

    def drop(self) -> None:
        if self._link is not None:
            self._link.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._link = transport
        peer = transport.get_extra_info("peername")
        if not peer or not self._gate.admit(self, str(peer[0])):
            transport.abort()
            return
        self._late = self.loop.call_later(HEADER_SECONDS, self.drop)
        if self._tls is None:
            super().connection_made(transport)
        else:
            transport.pause_reading()  # what comes first belongs to the handshake
            self._handshake = self.loop.create_task(self._encrypt(transport, self._tls))

    async def _encrypt(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        try:
            await self._spoken_to(transport)
            if transport.is_closing():
                return
            encrypted = await self.loop.start_tls(
                transport, self, tls, server_side=True, ssl_handshake_timeout=HEADER_SECONDS
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            transport.abort()
            return
        if isinstance(encrypted, asyncio.Transport):
            self._link = encrypted
            super().connection_made(encrypted)
            early, self._early = self._early, b""
            if early:
                self.data_received(early)

    async def _spoken_to(self, transport: asyncio.Transport) -> None:
        """Wait for the first bytes: a handshake takes 256 KiB, which silence is not worth."""
        opened = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        with opened:
            spoken = asyncio.Event()
            self.loop.add_reader(opened.fileno(), spoken.set)
            try:
                await spoken.wait()
            finally:
                self.loop.remove_reader(opened.fileno())

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.leave(self)
        if self._handshake is not None:
            self._handshake.cancel()
        if self._late is not None:
            self._late.cancel()
        if self.flow is not None:  # else it ended before it began
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.flow is None:  # the handshake is over, and `_encrypt` is about to know
            self._early += data
            return
        super().data_received(data)
        waiting = self.cycle is None or self.cycle.response_complete
        if waiting and self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self.drop)
        elif not waiting and self._late is not None:
            self._late.cancel()
            self._late = None
