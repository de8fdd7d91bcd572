"""Whether ports of a node's address can be reached from here, and whether it is the node there."""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from windrow.engine.fleet.preflight_looked import Probe
from windrow.engine.fleet.preflight_ports import NONCE_BYTES, digest, nonce
from windrow.engine.fleet.preflight_reach import MOST_PORTS

SECONDS: Final = 3.0
TRY_SECONDS: Final = 1.0
PAUSE: Final = 0.2


def own_address(address: str) -> str:
    """The address that this machine has towards another one; empty if it cannot reach it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect((address, 9))  # sends nothing
            return str(datagrams.getsockname()[0])
    except OSError:
        return ""


def accepting(address: str, ports: Iterable[int]) -> frozenset[int]:
    """The ports at which something takes a connection."""
    ports = sorted(set(ports))
    if not ports:
        return frozenset()

    def accepts(port: int) -> bool:
        try:
            socket.create_connection((address, port), SECONDS).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(min(len(ports), 32)) as pool:
        found = zip(ports, pool.map(accepts, ports), strict=True)
        return frozenset(port for port, there in found if there)


def probe(
    address: str, ports: Sequence[int], key: bytes, *, seconds: float, ended: Callable[[], bool]
) -> dict[int, Probe]:
    """What stands at each port, tried until the node answers at it, over TCP and UDP.

    key: what the node answers nonces with. ended: whether it has stopped to listen.
    """
    until = time.monotonic() + seconds

    def tried(port: int) -> Probe:
        tcp = udp = accepts = False
        while True:
            last = ended() or time.monotonic() > until
            if not tcp:
                there, tcp = _tcp(address, port, key)
                accepts |= there
            if not udp:
                udp = _udp(address, port, key)
            if last or (tcp and udp):
                return Probe(tcp=tcp, udp=udp, accepts=accepts)
            time.sleep(PAUSE)

    if not ports:
        return {}
    with ThreadPoolExecutor(min(len(ports), MOST_PORTS)) as pool:
        return dict(zip(ports, pool.map(tried, ports), strict=True))


def _tcp(address: str, port: int, key: bytes) -> tuple[bool, bool]:
    """Whether something takes a connection, and whether it is the node."""
    sent = nonce(key, port)
    try:
        with socket.create_connection((address, port), TRY_SECONDS) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(sent)
                said, until = b"", time.monotonic() + TRY_SECONDS
                while len(said) < NONCE_BYTES and time.monotonic() < until:
                    if not (part := connection.recv(NONCE_BYTES)):
                        break
                    said += part
                return True, secrets.compare_digest(said, digest(key, "tcp", port, sent))
            return True, False
    except OSError:
        return False, False


def _udp(address: str, port: int, key: bytes) -> bool:
    sent = nonce(key, port)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(TRY_SECONDS)
            # Only what comes from there is taken.
            datagrams.connect((address, port))
            datagrams.send(sent)
            said = datagrams.recv(NONCE_BYTES + 1)
    except OSError:
        return False
    return secrets.compare_digest(said, digest(key, "udp", port, sent))
