"""Whether ports of a public address can be reached from here."""

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

SECONDS = 3.0


def reachable(address: str, ports: Iterable[int]) -> dict[int, bool]:
    """By port, whether something answers there."""
    ports = list(ports)
    if not ports:
        return {}

    def answers(port: int) -> bool:
        try:
            socket.create_connection((address, port), SECONDS).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(min(len(ports), 32)) as pool:
        return dict(zip(ports, pool.map(answers, ports), strict=True))
