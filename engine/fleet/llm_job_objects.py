"""A node's way to the objects of a job: one fetched, one put, at addresses its asker signed.

Whoever knows such an address can use it, so no error has any part of one, and nothing is logged.
The node takes nothing on trust either: addresses lead to public hosts over https, or to the bucket
server that its own setting names; redirects are not followed, and bytes and seconds are bounded.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Final
from urllib.parse import SplitResult, urlsplit

from windrow import WindrowError
from windrow.networks.compute_horde.volumes import SingleFile, problem
from windrow.networks.s3_answers import Answer, Meaning, read_answer

BUCKET_ENDPOINT: Final = "WINDROW_BUCKET_ENDPOINT"
"""Variable that names a bucket server a node may use whatever its host, also without TLS."""

CONNECT_SECONDS: Final = 10.0
FETCH_SECONDS: Final = 30.0
PUT_SECONDS: Final = 60.0

_ERROR_BYTES: Final = 4096
_FIRST_WAIT: Final = 0.2
_PORTS: Final = {"http": 80, "https": 443}
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/[!-\"$-~]*")


class AddressRefused(WindrowError):
    """An address that a node was given leads where a node does not go."""


class DownloadFailed(WindrowError):
    """A node could not fetch the prompts of a job."""


class UploadFailed(WindrowError):
    """A node could not put its answer."""


def check_address(url: str) -> None:
    """Raises AddressRefused unless a node may use it: https to a public host, or its own bucket."""
    _target(url)


def fetch(url: str, *, size: int, sha256: str, seconds: float = FETCH_SECONDS) -> bytes:
    """Just these bytes. Raises AddressRefused, DownloadFailed."""
    status, data = _repeated("GET", url, b"", size, seconds, DownloadFailed)
    if status != 200:
        raise DownloadFailed(f"the bucket does not give the prompts: {_said(status, data)}")
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise DownloadFailed(
            f"the prompts are not the {size} bytes that were asked about; {len(data)} were read"
        )
    return data


def put(url: str, data: bytes, *, seconds: float = PUT_SECONDS) -> None:
    """Store bytes there. Raises AddressRefused, UploadFailed."""
    status, said = _repeated("PUT", url, data, _ERROR_BYTES, seconds, UploadFailed)
    if status not in (200, 201, 204):
        raise UploadFailed(
            f"the bucket does not take the answer of {len(data)} bytes: {_said(status, said)}"
        )


def _target(url: str) -> tuple[SplitResult, bool]:
    """Where an address leads, and whether that is the node's own bucket server."""
    if not _URL.fullmatch(url):
        raise AddressRefused("an address of a job's object is no http(s) URL without fragment")
    try:
        parts = urlsplit(url)
        own = urlsplit(os.environ.get(BUCKET_ENDPOINT) or "none")
        same = (parts.scheme, _port(parts)) == (own.scheme, _port(own))
    except ValueError:
        raise AddressRefused("an address of a job's object, or of the bucket, is no URL") from None
    # A bucket is named in the path, or before the server's name.
    if same and own.hostname and f".{parts.hostname}".endswith(f".{own.hostname}"):
        return parts, True
    if problem(SingleFile(url=url, relative_path="file")):
        raise AddressRefused(
            "an address of a job's object is neither an https one of a public host nor of the "
            f"bucket server of this node; if it is one of yours, set {BUCKET_ENDPOINT} here"
        )
    return parts, False


def _port(url: SplitResult) -> int | None:
    return url.port or _PORTS.get(url.scheme)


def _repeated(
    method: str, url: str, body: bytes, most: int, seconds: float, failed: type[WindrowError]
) -> tuple[int, bytes]:
    """As _exchange; a request is made again while the bucket is busy and time is left."""
    until, wait = time.monotonic() + seconds, _FIRST_WAIT
    while True:
        left = until - time.monotonic()
        status, data = _exchange(method, url, body, most, left, failed)
        busy = status >= 400 and _answer(status, data).meaning is Meaning.RETRY
        if not busy or time.monotonic() + 2 * wait >= until:
            return status, data
        time.sleep(wait)
        wait *= 2


def _exchange(
    method: str, url: str, body: bytes, most: int, seconds: float, failed: type[WindrowError]
) -> tuple[int, bytes]:
    """Status and body of one request's answer; of a body no more than `most` bytes and one."""
    parts, own = _target(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    headers = {"Host": parts.netloc, "Content-Type": "application/octet-stream"}
    try:
        with _connected(parts, seconds, public=not own) as (connection, late):
            try:
                # A server that refuses early may close before it has read all of it.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body or None, headers)
                response = connection.getresponse()
                refused = response.status >= 300
                data = _read(response, max(most + 1, _ERROR_BYTES) if refused else most + 1)
            except (OSError, HTTPException, ValueError):
                if late.is_set():
                    raise TimeoutError from None
                raise
            if late.is_set():
                raise TimeoutError
    except TimeoutError:
        raise failed(f"the bucket did not answer {method} within {seconds:.0f} s") from None
    except (OSError, HTTPException, ValueError) as error:
        name = type(error).__name__
        raise failed(f"the bucket cannot be reached with {method}: {name}") from None
    return response.status, data


@contextlib.contextmanager
def _connected(
    parts: SplitResult, seconds: float, *, public: bool
) -> Iterator[tuple[HTTPConnection, threading.Event]]:
    """A connection that is cut when the time is over, and what says that it was."""
    host, port = parts.hostname or "", _port(parts)
    late = threading.Event()
    with contextlib.ExitStack() as stack:
        link = socket.create_connection((host, port), min(CONNECT_SECONDS, seconds))
        stack.callback(link.close)
        if public and not ipaddress.ip_address(link.getpeername()[0]).is_global:
            raise AddressRefused(
                "an address of a job's object leads to no public host; if it is one of yours, set "
                f"{BUCKET_ENDPOINT} here"
            )
        link.settimeout(seconds)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            link = context.wrap_socket(link, server_hostname=host, do_handshake_on_connect=False)
            stack.callback(link.close)
        timer = threading.Timer(seconds, _cut, (link, late))
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        if isinstance(link, ssl.SSLSocket):
            link.do_handshake()
        connection = HTTPConnection(host, port)
        connection.sock = link
        yield connection, late


def _cut(link: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        # Not SSLSocket's own, which is not for use beside a read.
        socket.socket.shutdown(link, socket.SHUT_RDWR)


def _read(response: HTTPResponse, most: int) -> bytes:
    parts, left = [], most
    while left > 0 and (part := response.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _said(status: int, data: bytes) -> str:
    """What a bucket says of a request it refuses: status and S3's word for it."""
    if 300 <= status < 400:
        return f"it answers {status}, and no redirect is followed"
    answer = _answer(status, data)
    # Its message may hold part of the address.
    said = f"it answers {status}" + (f" {answer.code}" if answer.code else "")
    return f"{said}. {answer.remedy}"


def _answer(status: int, data: bytes) -> Answer:
    return read_answer(status, data[:_ERROR_BYTES].decode(errors="replace"))
