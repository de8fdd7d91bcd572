"""Listeners of a node that show who stands behind an address, for a few seconds.

The asker sends a nonce that only it can make; the node answers with a digest under the key that it
was just given. Nobody else is answered, and nobody else is waited for.
"""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any, Final

MOST_AT_ONCE: Final = 128
REST_SECONDS: Final = 3.0
NONCE_BYTES: Final = 32


def digest(key: bytes, transport: str, port: int, nonce: bytes) -> bytes:
    """32 bytes that show who answers at a port; transport: `tcp` or `udp`."""
    return hmac.digest(key, f"{transport} {port} ".encode() + nonce, hashlib.sha256)


def nonce(key: bytes, port: int) -> bytes:
    """32 bytes that only the asker can make: a stranger's are not answered, nor waited for."""
    head = secrets.token_bytes(NONCE_BYTES // 2)
    return head + digest(key, "ask", port, head)[: NONCE_BYTES // 2]


def _is_askers(key: bytes, port: int, data: bytes) -> bool:
    head, tail = data[: NONCE_BYTES // 2], data[NONCE_BYTES // 2 :]
    return hmac.compare_digest(tail, digest(key, "ask", port, head)[: NONCE_BYTES // 2])


class Ports:
    """Listeners that answer a nonce with its digest, and know when everybody was served."""

    def __init__(
        self, ports: Sequence[int], key: bytes, seconds: float, address: str | None
    ) -> None:
        """seconds: how long at most. address: the node's own, at which it tries to meet itself."""
        self._ports = ports
        self._key = key
        self._seconds = seconds
        self._address = address
        self._own = b""
        self._waiting: set[tuple[str, int]] = set()
        self._last: float | None = None
        self._at_once = 0

    async def serve(self) -> tuple[tuple[int, ...], bool | None]:
        """The ports that could be opened, and whether the node met itself."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        opened: list[int] = []
        async with contextlib.AsyncExitStack() as stack:
            for port in self._ports:
                with contextlib.suppress(OSError):
                    await self._open(port, stack)
                    opened.append(port)
            hairpin = await self._met(opened[0]) if opened and self._address else None
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
            ("0.0.0.0", port),  # noqa: S104 - to be reached
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
                    said = self.answer("tcp", port, await reader.readexactly(NONCE_BYTES))
                    writer.write(said)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # whoever sends something else is nobody we wait for
        finally:
            self._at_once -= 1
            writer.close()

    def answer(self, transport: str, port: int, data: bytes) -> bytes:
        """The answer to the asker's nonce, which then is served, or to the node's own."""
        if not _is_askers(self._key, port, data):
            return b""
        if data != self._own:
            self._waiting.discard((transport, port))
            self._last = asyncio.get_running_loop().time()
        return digest(self._key, transport, port, data)

    async def _met(self, port: int) -> bool:
        self._own = nonce(self._key, port)
        try:
            async with asyncio.timeout(REST_SECONDS):
                reader, writer = await asyncio.open_connection(self._address, port)
                try:
                    writer.write(self._own)
                    found = await reader.readexactly(NONCE_BYTES)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
        return found == digest(self._key, "tcp", port, self._own)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, ports: Ports, port: int) -> None:
        self._ports, self._port = ports, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        said = self._ports.answer("udp", self._port, data)
        if said:
            self._transport.sendto(said, address)


async def _closed(server: asyncio.Server) -> None:
    # Not wait_closed: it would wait for whoever keeps a connection.
    server.close()
