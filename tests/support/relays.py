"""Real HTTP servers that act as drand relays, good and bad."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pyblst import BlstP1Element, BlstP2Element

from windrow.networks.grail.drand import _G2, DOMAIN
from windrow.networks.grail.windows import DrandChain

RECORDING = Path(__file__).parents[1] / "vectors" / "drand" / "quicknet_round1000.json"
ROUND = json.loads(RECORDING.read_text())
ROUND_1000 = ROUND["genesis_time"] + 999 * ROUND["period"]
"""When it begins, in unix seconds."""

HONEST = {name: ROUND[name] for name in ("round", "randomness", "signature")}
LIES: dict[str, dict[str, Any]] = {
    "WrongRound": HONEST | {"round": 999},
    "WrongSignature": HONEST | {"randomness": "00" * 32},
    "WrongChain": {
        "round": 1000,
        "randomness": "8d" * 32,
        "signature": "8d" * 96,
        "previous_signature": "aa" * 96,
    },
    "MalformedRound": {"round": "1000", "randomness": None},
}


SECRET = 0x57494E44
OWN = DrandChain(
    "own",
    "0" * 64,
    genesis=0,
    period=3,
    public_key=BlstP2Element().uncompress(_G2).scalar_mul(SECRET).compress().hex(),
)
"""A chain whose only signer is a relay here."""


def signed(number: int) -> dict[str, Any]:
    """A true round of OWN, as a relay answers it."""
    message = hashlib.sha256(number.to_bytes(8, "big")).digest()
    signature = BlstP1Element().hash_to_group(message, DOMAIN).scalar_mul(SECRET).compress()
    randomness = hashlib.sha256(signature).hexdigest()
    return {"round": number, "randomness": randomness, "signature": signature.hex()}


class Relay(ThreadingHTTPServer):
    """A relay on a free port of this machine.

    behaviour: honest, signs (every round of OWN), silent (503), slow (never ends), drip (a byte
    at a time), huge, or the name of a lie. asked: the paths of its requests.
    """

    daemon_threads = True

    def __init__(self, behaviour: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour
        self.asked: list[str] = []
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"


class _Handler(BaseHTTPRequestHandler):
    server: Relay

    def do_GET(self) -> None:
        relay = self.server
        relay.asked.append(self.path)
        if relay.behaviour == "silent":
            self.send_error(503)
            return
        answer = LIES.get(relay.behaviour, HONEST)
        if relay.behaviour == "signs":
            answer = signed(int(self.path.rpartition("/")[2]))
        body = json.dumps(answer).encode()
        if relay.behaviour == "huge":
            body += b" " * 1_000_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if relay.behaviour == "slow":
            relay.closing.wait(60)
        elif relay.behaviour == "drip":
            for byte in body:
                if relay.closing.is_set():
                    break
                self.wfile.write(bytes([byte]))
                time.sleep(0.25)
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing."""


@contextmanager
def relays(*behaviours: str) -> Iterator[list[Relay]]:
    """Relays that run until the block ends."""
    servers = [Relay(behaviour) for behaviour in behaviours]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield servers
    finally:
        for server in servers:
            server.closing.set()
            server.shutdown()
            server.server_close()
