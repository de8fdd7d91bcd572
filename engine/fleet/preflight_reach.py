"""What a machine reaches, and whether it is reached: the node's side of the network's checks.

A node fetches URLs that tell their asker which address it comes from, and for a few seconds
answers at its ports with a keyed digest, so that the asker knows who stands behind an address.
Its own word counts for little: the asker looks at what arrived, and at what answered.
"""

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from windrow.engine.fleet.frames import BadFrame, from_json, to_json
from windrow.engine.fleet.preflight import BadMeasurement, Port, Strict, Text

MAX_ANSWER: Final = 1 << 16
MOST_PORTS: Final = 32
MOST_PEERS: Final = 64
FETCH_SECONDS: Final = 5.0
FETCHING_SECONDS: Final = 20.0
PEER_SECONDS: Final = 3.0
PEER_PORT: Final = 22
MOST_AT_ONCE: Final = 128
REST_SECONDS: Final = 3.0
NONCE_BYTES: Final = 32
REGISTRY_PORT: Final = 30500


class AskedReach(Strict):
    """What to reach, and where to be reached.

    callbacks: URLs in the order to fetch them, `pause` seconds before every `round` of them but the
    first. registry: host whose address is asked for. peers: addresses that should answer.
    ports: to answer at, for `seconds` at most, with `key` (hex); address: at which the node tries
    the first of them itself.
    """

    callbacks: Annotated[tuple[Text, ...], Field(max_length=24, strict=False)] = ()
    round: Annotated[int, Field(ge=1, le=24)] = 1
    pause: Annotated[float, Field(ge=0, le=5)] = 0.0
    registry: Text | None = None
    peers: Annotated[tuple[Text, ...], Field(max_length=MOST_PEERS, strict=False)] = ()
    ports: Annotated[tuple[Port, ...], Field(max_length=MOST_PORTS, strict=False)] = ()
    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = "0" * 64
    seconds: Annotated[float, Field(ge=0, le=30)] = 0.0
    address: Text | None = None


class Reached(Strict):
    """What the node says of it.

    callbacks: what each URL answered, None where it could not be fetched. registry_status: HTTP
    status of the registry beside the node. peers: those that answered. opened: ports the node could
    listen at. hairpin: whether it met itself at its own public address.
    """

    callbacks: Annotated[tuple[Text | None, ...], Field(max_length=24, strict=False)]
    registry_address: Text | None
    registry_status: Annotated[int, Field(ge=100, le=999)] | None
    peers: Annotated[tuple[Text, ...], Field(max_length=MOST_PEERS, strict=False)]
    opened: Annotated[tuple[Port, ...], Field(max_length=MOST_PORTS, strict=False)]
    hairpin: bool | None


def challenge(asked: AskedReach) -> bytes:
    """The request of the task `preflight`."""
    return to_json({"reach": asked.model_dump(mode="json")})


def parse(data: bytes, asked: AskedReach) -> Reached:
    """A node's answer to what was asked. Raises BadMeasurement."""
    try:
        found = Reached.model_validate(from_json(data, max_bytes=MAX_ANSWER))
    except (BadFrame, ValidationError) as error:
        raise BadMeasurement(f"what was reached, in another form: {str(error)[:300]}") from error
    if len(found.callbacks) != len(asked.callbacks):
        raise BadMeasurement(f"{len(found.callbacks)} answers to {len(asked.callbacks)} callbacks")
    return found


def digest(key: bytes, transport: str, port: int, nonce: bytes) -> bytes:
    """32 bytes that show who answers at a port; transport: `tcp` or `udp`."""
    return hmac.digest(key, f"{transport} {port} ".encode() + nonce, hashlib.sha256)


def reach(asked: AskedReach) -> Reached:
    """Fetch, try and answer, all at once, on the node."""
    with ThreadPoolExecutor(4) as pool:
        callbacks = pool.submit(_fetched_all, asked.callbacks, asked.round, asked.pause)
        peers = pool.submit(_answering, asked.peers)
        registry = pool.submit(_registry, asked.registry)
        opened: tuple[int, ...] = ()
        hairpin: bool | None = None
        if asked.ports:
            opened, hairpin = asyncio.run(_Ports(asked).serve())
        address, status = registry.result()
        return Reached(
            callbacks=callbacks.result(),
            registry_address=address,
            registry_status=status,
            peers=peers.result(),
            opened=opened,
            hairpin=hairpin,
        )


class _Ports:
    """Listeners that answer a nonce with its digest, and know when everybody was served."""

    def __init__(self, asked: AskedReach) -> None:
        self._asked = asked
        self._key = bytes.fromhex(asked.key)
        self._own = secrets.token_bytes(NONCE_BYTES)
        self._waiting: set[tuple[str, int]] = set()
        self._last: float | None = None
        self._at_once = 0

    async def serve(self) -> tuple[tuple[int, ...], bool | None]:
        """The ports that could be opened, and whether the node met itself."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._asked.seconds
        opened: list[int] = []
        async with contextlib.AsyncExitStack() as stack:
            for port in self._asked.ports:
                with contextlib.suppress(OSError):
                    await self._open(port, stack)
                    opened.append(port)
            hairpin = await self._met(opened[0]) if opened and self._asked.address else None
            while self._waiting and loop.time() < until:
                if self._last is not None and loop.time() > self._last + REST_SECONDS:
                    break
                await asyncio.sleep(0.05)
            # An answer to a datagram may be lost; whoever lost it asks again at once.
            await asyncio.sleep(0.3 if opened else 0.0)
        return tuple(opened), hairpin

    async def _open(self, port: int, stack: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._answer(port, reader, writer)

        server = await asyncio.start_server(answer, "0.0.0.0", port)  # noqa: S104 - to be reached
        stack.push_async_callback(_closed, server)
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self, port),
            ("0.0.0.0", port),  # noqa: S104
        )
        stack.callback(transport.close)
        self._waiting |= {("tcp", port), ("udp", port)}

    async def _answer(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._at_once += 1
        try:
            if self._at_once <= MOST_AT_ONCE:
                async with asyncio.timeout(REST_SECONDS):
                    nonce = await reader.readexactly(NONCE_BYTES)
                    writer.write(self.digest("tcp", port, nonce))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # whoever sends something else is nobody we wait for
        finally:
            self._at_once -= 1
            writer.close()

    def digest(self, transport: str, port: int, nonce: bytes) -> bytes:
        """The answer to a nonce; unless it is the node's own, the port is served."""
        if nonce != self._own:
            self._waiting.discard((transport, port))
            self._last = asyncio.get_running_loop().time()
        return digest(self._key, transport, port, nonce)

    async def _met(self, port: int) -> bool:
        try:
            async with asyncio.timeout(REST_SECONDS):
                reader, writer = await asyncio.open_connection(self._asked.address, port)
                try:
                    writer.write(self._own)
                    found = await reader.readexactly(32)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
        return found == digest(self._key, "tcp", port, self._own)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, ports: _Ports, port: int) -> None:
        self._ports, self._port = ports, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if len(data) == NONCE_BYTES:
            self._transport.sendto(self._ports.digest("udp", self._port, data), address)


async def _closed(server: asyncio.Server) -> None:
    # Not wait_closed: it would wait for whoever keeps a connection.
    server.close()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _fetched_all(urls: Sequence[str], size: int, pause: float) -> tuple[str | None, ...]:
    until = time.monotonic() + FETCHING_SECONDS
    said: list[str | None] = []
    for index, url in enumerate(urls):
        if index and index % size == 0:
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
        answer = _fetched(url, until)
        # A salt that did not arrive is still good, and a connection may be lost once.
        said.append(_fetched(url, until) if answer is None else answer)
    return tuple(said)


def _fetched(url: str, until: float) -> str | None:
    """What a URL answers, a few bytes of it; None where it cannot be fetched."""
    left = min(FETCH_SECONDS, until - time.monotonic())
    if left <= 0 or not url.startswith("http://"):
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(url, timeout=left) as response:
            said: bytes = response.read(512)
    except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException):
        return None
    return said.decode(errors="replace")


def _answering(addresses: Sequence[str]) -> tuple[str, ...]:
    """Those that answer; one that refuses the connection is there too."""

    def answers(address: str) -> bool:
        try:
            socket.create_connection((address, PEER_PORT), PEER_SECONDS).close()
        except ConnectionRefusedError:
            return True
        except (OSError, UnicodeError):
            return False
        return True

    if not addresses:
        return ()
    with ThreadPoolExecutor(min(len(addresses), 32)) as pool:
        found = zip(addresses, pool.map(answers, addresses), strict=True)
        return tuple(address for address, there in found if there)


def _registry(host: str | None) -> tuple[str | None, int | None]:
    """Where a registry's name leads, and what the proxy beside the node says to whoever asks.

    200, or 401 where the key that signs is not let in. Nobody but this machine is asked.
    """
    if host is None:
        return None, None
    try:
        address = socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return None, None
    if address != "127.0.0.1":
        return address, None
    connection = http.client.HTTPConnection(address, REGISTRY_PORT, timeout=FETCH_SECONDS)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/v2/", headers={"Host": f"{host}:{REGISTRY_PORT}"})
            return address, connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return address, None
