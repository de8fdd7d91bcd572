"""drand rounds over HTTP: several relays, bounded time, and no word believed without its signature.

What answers is a stranger: slow, silent, out of date or lying. A relay's word is taken only when
the signature of the round that was asked for holds; any other answer is refused with its name, and
the next relay is asked.
"""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from windrow import WindrowError
from windrow.networks.grail.drand import MAX_ANSWER_BYTES, DrandRound, FalseRound, read_round
from windrow.networks.grail.windows import QUICKNET, DrandChain, relay_urls

if TYPE_CHECKING:
    import httpx


class RelayFailed(WindrowError):
    """A relay gave no answer that could be a round."""


@dataclass(frozen=True)
class RelayRefusal:
    """Why a relay's answer was not taken. name: of the error; detail: says which relay."""

    name: str
    detail: str


class DrandUnavailable(WindrowError):
    """No relay gave the round. refusals: why each was passed over."""

    def __init__(self, number: int, refusals: Sequence[RelayRefusal]) -> None:
        said = "; ".join(refusal.detail for refusal in refusals)
        super().__init__(
            f"no drand relay gave round {number}: {said}. The block hash alone stands in for it; "
            "look at the relays if this goes on."
        )
        self.refusals = tuple(refusals)


@dataclass(frozen=True)
class RelayAnswer:
    """A verified round, the relay it is from, and what relays before it said instead."""

    round: DrandRound
    relay: str
    refusals: tuple[RelayRefusal, ...]


class DrandRelays:
    """Relays of one drand chain."""

    def __init__(self, relays: Sequence[str], seconds: float, chain: DrandChain = QUICKNET) -> None:
        """relays: base URLs, asked in this order; seconds: all of what each has to answer."""
        self._relays = tuple(relays)
        self._seconds = seconds
        self._chain = chain

    def round(self, number: int) -> RelayAnswer:
        """Round `number`, from the first relay whose word holds. Raises DrandUnavailable."""
        refusals: list[RelayRefusal] = []
        for url in relay_urls(number, self._chain, self._relays):
            relay = urlsplit(url).netloc
            try:
                found = read_round(_within(self._seconds, url), number, self._chain)
            except (RelayFailed, FalseRound) as error:
                refusals.append(RelayRefusal(type(error).__name__, f"{relay}: {error}"))
            else:
                return RelayAnswer(found, relay, tuple(refusals))
        raise DrandUnavailable(number, refusals)


def _within(seconds: float, url: str) -> bytes:
    """The body at a URL, in so many seconds altogether: names, connection, every byte.

    A relay that sends one byte a second passes any limit on a single wait, so the whole exchange
    has a thread that is left behind when its time is over.
    """
    import httpx  # noqa: F401 - its import is not the relay's time

    answers: queue.SimpleQueue[bytes | RelayFailed] = queue.SimpleQueue()
    deadline = time.monotonic() + seconds
    threading.Thread(
        target=lambda: answers.put(_answer(url, seconds, deadline)), name="drand", daemon=True
    ).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise RelayFailed(f"no whole answer in {seconds:g} s") from None
    if isinstance(answer, RelayFailed):
        raise answer
    return answer


def _answer(url: str, seconds: float, deadline: float) -> bytes | RelayFailed:
    import httpx

    try:
        # Redirects are not followed, and nothing is unpacked: a relay answers itself, plainly.
        headers = {"User-Agent": "windrow", "Accept-Encoding": "identity"}
        with httpx.stream("GET", url, timeout=seconds, headers=headers) as reply:
            return _body(reply, deadline)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return RelayFailed(f"{type(error).__name__} {error}".rstrip())


def _body(reply: "httpx.Response", deadline: float) -> bytes | RelayFailed:
    if reply.status_code != 200:
        return RelayFailed(f"it answers {reply.status_code}")
    body = b""
    for chunk in reply.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return RelayFailed(f"it sends more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            return RelayFailed("it did not end its answer in time")
    return body
