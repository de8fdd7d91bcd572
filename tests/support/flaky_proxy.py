"""An HTTP proxy before an S3 server that fails as it is told, once for each fault asked for."""

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal[
    "busy",  # 503 before the server sees the request
    "reset",  # the connection is reset before the server sees the request
    "stored_then_reset",  # the server does it, the answer is lost
    "stored_then_busy",  # the server does it, the answer is 503
    "refused",  # 403, as when a key was revoked
    "silent",  # no answer until the proxy ends
    "cut",  # half of the answer's body, then the end
    "flipped",  # one byte of the answer's body is another
    "answer",  # the fault's own status, headers and body, before the server sees the request
]


@dataclass
class Fault:
    """kind: what goes wrong; method, part: of which requests, by a part of their path and query.

    times: with how many of them. status, body, headers: of the answer of that kind.
    """

    kind: Kind
    method: str = ""
    part: str = ""
    times: int = 1
    status: int = 500
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class FlakyProxy:
    """url: where clients connect. faults: to come. seen: method and path of every request."""

    url: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, part: str = "") -> int:
        """How many requests of a method, with this in their path or query, came here."""
        return sum(verb == method and part in path for verb, path in self.seen)

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.seen.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method in ("", method) and fault.part in path:
                    fault.times -= 1
                    return fault
        return None


@contextlib.contextmanager
def flaky_proxy(upstream: str) -> Iterator[FlakyProxy]:
    """A running proxy before the server at ``upstream``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = FlakyProxy(f"http://127.0.0.1:{server.server_address[1]}", upstream)
    server.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def _serve(self) -> None:
        proxy: FlakyProxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = proxy.fault_for(self.command, self.path)
        kind = fault.kind if fault else None
        if kind == "silent":
            proxy.ended.wait()
            self._reset()
        elif kind == "reset":
            self._reset()
        elif kind == "busy":
            self._error(503, "SlowDown")
        elif fault is not None and kind == "answer":
            self._answer(fault.status, fault.body, fault.headers)
        elif kind == "refused":
            self._error(403, "InvalidAccessKeyId")
        else:
            self._forward(proxy.upstream, body, kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _forward(self, upstream: str, body: bytes, kind: Kind | None) -> None:
        connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
        connection.request(self.command, self.path, body or None, dict(self.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if kind == "stored_then_reset":
            self._reset()
            return
        if kind == "stored_then_busy":
            self._error(503, "SlowDown")
            return
        if kind == "flipped" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(answer.status)
        length = answer.getheader("Content-Length")
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            # Not reset: that would take back what was sent.
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, data: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        # Not send_response, which adds a Date of its own.
        self.send_response_only(status)
        if "Date" not in dict(headers):
            self.send_header("Date", self.date_time_string())
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
