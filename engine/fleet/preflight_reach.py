"""What a machine reaches, and whether it is reached: the node's side of the network's checks.

A node fetches URLs that tell their asker which address it comes from, and for a few seconds
answers at its ports with a keyed digest, so that the asker knows who stands behind an address.
Its own word counts for little: the asker looks at what arrived, and at what answered.
"""

import asyncio
import contextlib
import http.client
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
from windrow.engine.fleet.preflight_ports import Ports

MAX_ANSWER: Final = 1 << 16
MOST_PORTS: Final = 32
MOST_PEERS: Final = 64
FETCH_SECONDS: Final = 5.0
FETCHING_SECONDS: Final = 20.0
PEER_SECONDS: Final = 3.0
PEER_PORT: Final = 22
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


def reach(asked: AskedReach) -> Reached:
    """Fetch, try and answer, all at once, on the node."""
    with ThreadPoolExecutor(4) as pool:
        callbacks = pool.submit(_fetched_all, asked.callbacks, asked.round, asked.pause)
        peers = pool.submit(_answering, asked.peers)
        registry = pool.submit(_registry, asked.registry)
        opened: tuple[int, ...] = ()
        hairpin: bool | None = None
        if asked.ports:
            ports = Ports(asked.ports, bytes.fromhex(asked.key), asked.seconds, asked.address)
            opened, hairpin = asyncio.run(ports.serve())
        address, status = registry.result()
        return Reached(
            callbacks=callbacks.result(),
            registry_address=address,
            registry_status=status,
            peers=peers.result(),
            opened=opened,
            hairpin=hairpin,
        )


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
