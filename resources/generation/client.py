"""Calls to a generation server: bounded in time and size, cut short from outside, errors named.

Nothing a server answers is trusted: a hung, dripping, resetting or babbling one costs at most the
call's seconds and bytes. Redirects and proxies of the environment are not followed.
"""

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from windrow import WindrowError
from windrow.resources.secret import Secret

CONNECT_SECONDS: Final = 10.0
SMALL_ANSWER: Final = 8 * 1024 * 1024
_LATER: Final = (408, 409, 429)
_CHUNK: Final = 256 * 1024
_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")


class GenerationServerError(WindrowError):
    """A generation server did not do what it was asked."""


class ServerUnreachable(GenerationServerError):
    """A server does not accept connections, or closed one before its answer was whole."""


class ServerTimedOut(GenerationServerError):
    """A server did not answer within the time it had."""


class ServerFailed(GenerationServerError):
    """A server answered that it failed."""


class RequestRefused(GenerationServerError):
    """A server refused a request as wrong; it would refuse it again."""


class Unauthorized(GenerationServerError):
    """A server wants an API key, or another one."""


class MalformedAnswer(GenerationServerError):
    """A server's answer is not what its interface promises."""


class AnswerTooLarge(GenerationServerError):
    """A server's answer is larger than any honest one."""


class InvalidServerAddress(WindrowError):
    """A server's URL or API key cannot be used."""


@dataclass(frozen=True)
class Answer:
    """What came back, whatever the status."""

    status: int
    body: bytes

    def document(self) -> Any:
        """The body as JSON. Raises MalformedAnswer."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise MalformedAnswer(
                f"the answer (status {self.status}) is not JSON: {legible(self.body)!r}"
            ) from error


class Flight:
    """One call on its way, which another thread may cut short."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.reason: WindrowError | None = None

    def cut(self, reason: WindrowError) -> None:
        """Have the call raise this at once; the first reason counts."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
            self._shut()

    def carry(self, connection: socket.socket | None) -> None:
        """Take the socket that the call waits on; None when it is done."""
        with self._lock:
            self._socket = connection
            if self.reason is not None:
                self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            # Not the method of an SSL socket, which would pull the rug from under its reader; one
            # that is closed already is as wanted.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class ServerClient:
    """Speaks HTTP with one server; thread-safe, one connection a call."""

    def __init__(self, url: str, api_key: Secret | None = None) -> None:
        """url: http(s)://host:port, optionally with a path before every other.

        Raises InvalidServerAddress, which never shows the key.
        """
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise InvalidServerAddress(f"server URL {url!r:.200}: {error}") from error
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username is not None
            or parts.query
            or parts.fragment
        ):
            raise InvalidServerAddress(
                f"server URL {parts.scheme}://{parts.hostname}: give http(s)://host:port, and a "
                "key through its own setting"
            )
        if api_key is not None and not _KEY.fullmatch(api_key.reveal()):
            raise InvalidServerAddress(
                f"the API key for {self.url} holds spaces, line ends or other characters that no "
                "header can carry; set it without them"
            )
        self._secure = parts.scheme == "https"
        self._host, self._port, self._path = parts.hostname, port, parts.path
        self._api_key = api_key

    def post(
        self, path: str, document: object, *, seconds: float, most: int = SMALL_ANSWER
    ) -> Answer:
        """`call` with a JSON body."""
        return self.call("POST", path, document, seconds=seconds, most=most)

    def get(self, path: str, *, seconds: float) -> Answer:
        """`call` without a body."""
        return self.call("GET", path, None, seconds=seconds)

    def call(
        self,
        method: str,
        path: str,
        document: object,
        *,
        seconds: float,
        most: int = SMALL_ANSWER,
        flight: Flight | None = None,
    ) -> Answer:
        """One request and its whole answer, of at most `most` bytes, within `seconds`.

        Raises what the flight was cut with, else ServerUnreachable, ServerTimedOut,
        MalformedAnswer (not HTTP), AnswerTooLarge.
        """
        flight = flight or Flight()
        late = ServerTimedOut(f"{self.url}{path} gave no whole answer within {seconds:.0f} s")
        timer = threading.Timer(seconds, flight.cut, [late])
        timer.daemon = True
        connection = self._connection(min(CONNECT_SECONDS, seconds))
        timer.start()
        try:
            connection.connect()
            connection.sock.settimeout(seconds)
            flight.carry(connection.sock)
            body = None if document is None else json.dumps(document).encode()
            connection.request(method, self._path + path, body, self._headers(body))
            answer = self._read(connection.getresponse(), path, most)
        except (OSError, http.client.HTTPException) as error:
            raise flight.reason or self._named(error, path, late) from error
        finally:
            timer.cancel()
            flight.carry(None)
            connection.close()
        if flight.reason is not None:
            raise flight.reason
        return answer

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=seconds, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=seconds)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key.reveal()}"
        return headers

    def _read(self, response: http.client.HTTPResponse, path: str, most: int) -> Answer:
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > most:
                raise AnswerTooLarge(
                    f"{self.url}{path} answers with more than {most} bytes; it is broken or no "
                    "generation server"
                )
        if response.length:  # read1 ends quietly when a connection does
            raise http.client.IncompleteRead(b"", response.length)
        return Answer(response.status, bytes(body))

    def _named(self, error: Exception, path: str, late: ServerTimedOut) -> GenerationServerError:
        if isinstance(error, TimeoutError):
            return late
        if isinstance(error, (OSError, http.client.IncompleteRead)):
            return ServerUnreachable(
                f"{self.url}{path}: {type(error).__name__}: {error}; the server is gone, or was "
                "never there"
            )
        return MalformedAnswer(f"{self.url}{path} does not speak HTTP: {type(error).__name__}")


def succeeded(answer: Answer, what: str) -> Answer:
    """The answer, when its status is 200.

    Raises Unauthorized, RequestRefused, ServerFailed, MalformedAnswer.
    """
    status = answer.status
    if status == 200:
        return answer
    said = f"{what}: status {status}: {error_text(answer.body)}"
    if status in (401, 403):
        raise Unauthorized(f"{said}; set the server's API key")
    if status >= 500 or status in _LATER:
        raise ServerFailed(said)
    if status >= 400:
        raise RequestRefused(said)
    raise MalformedAnswer(said)


def error_text(body: bytes) -> str:
    """What an error answer says, in any of the three shapes of SGLang or none of them."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return legible(body)
    if isinstance(document, dict):
        inner = document.get("error", document)
        text = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(text, str):
            return legible(text.encode())
    return legible(body)


def legible(body: bytes) -> str:
    """The first 300 characters of an answer, fit for a log."""
    return _UNPRINTABLE.sub(" ", body[:1200].decode("utf-8", errors="replace"))[:300].strip()
