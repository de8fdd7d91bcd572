"""What a server says of itself to a request without a signature: its clock, a bucket's region."""

import contextlib
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import quote, urlsplit

ASK_SECONDS: Final = 5.0


@dataclass(frozen=True)
class ServerFacts:
    """What a server said, None for what it did not.

    skew: seconds by which this machine's clock is ahead of the server's. region: of the bucket.
    """

    skew: float | None = None
    region: str | None = None


def ask_server(endpoint: str, bucket: str, seconds: float = ASK_SECONDS) -> ServerFacts:
    """Facts from the headers of one HEAD request, whatever its status. No error is raised."""
    url = urlsplit(endpoint)
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    with contextlib.suppress(OSError, HTTPException, ValueError):
        connection = kind(url.hostname or "", url.port, timeout=seconds)
        try:
            began = time.time()
            connection.request("HEAD", f"/{quote(bucket)}")
            answer = connection.getresponse()
            now = (began + time.time()) / 2
            return ServerFacts(
                _skew(answer.getheader("Date"), now), answer.getheader("x-amz-bucket-region")
            )
        finally:
            connection.close()
    return ServerFacts()


def _skew(date: str | None, now: float) -> float | None:
    if date is None:
        return None
    try:
        return now - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
