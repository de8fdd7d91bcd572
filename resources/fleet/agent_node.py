"""A node asked through its agent: signed there, signed back, bounded in time and size."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx

from windrow.engine.fleet.frames import BadFrame, from_json
from windrow.networks.chutes.signing import SIGNATURE, to_agent
from windrow.resources.fleet.agent_identity import answer_text, is_from, path_of
from windrow.resources.fleet.agent_service import ANSWER_SIGNATURE
from windrow.resources.fleet.nodes import (
    Answer,
    ForgedAnswer,
    NodeAnswerTooLarge,
    NodeRefused,
    NodeTimedOut,
    NodeUnreachable,
    TaskFailed,
)
from windrow.resources.wallet import Wallet

CONNECT_SECONDS: Final = 10.0
_REFUSALS: Final = (401, 404, 408, 413, 429)


class AgentNode:
    """The node behind an agent. hotkey: whom the agent answers for; key: the agent's public key."""

    def __init__(
        self,
        name: str,
        *,
        host: str,
        port: int,
        hotkey: str,
        key: str,
        wallet: Wallet,
        tls: str | None = None,
    ) -> None:
        """tls: path of the PEM certificate to trust; None asks over plain HTTP.

        Raises NodeUnreachable where the certificate cannot be read.
        """
        self.name = name
        address = f"[{host}]" if ":" in host else host
        self._url = f"{'https' if tls else 'http'}://{address}:{port}"
        self._hotkey = hotkey
        self._key = key
        self._wallet = wallet
        # trust_env: a proxy of this machine's environment is nobody the node was asked through.
        # verify: answers are signed; without TLS, reading the system's CAs would take 25 ms.
        self._client = httpx.Client(
            trust_env=False,
            follow_redirects=False,
            verify=_trusting(name, tls) if tls else False,
            # A connection a question, so that it can be cut when the question's time is over.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """See NodeAccess. Raises ForgedAnswer for an answer the agent's key did not sign."""
        path = path_of(task, self.name, self._key)
        made = to_agent(
            self._wallet.sign,
            self._hotkey,
            self._wallet.hotkey,
            int(time.time()),
            method="POST",
            path=path,
            body=request,
        )
        began = time.monotonic()
        where = f"node {self.name} at {task}"
        late = f"{where} did not answer within {timeout:.0f} s"
        cut = _Cut()
        try:
            with (
                cut.after(timeout),
                self._client.stream(
                    "POST",
                    self._url + path,
                    content=request,
                    headers=dict(made.headers),
                    timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
                    extensions={"trace": cut.watch},
                ) as response,
            ):
                body = self._body(response, where, max_bytes)
                seconds = time.monotonic() - began
            if cut.made.is_set():
                raise NodeTimedOut(late)
        except httpx.TimeoutException as error:
            raise NodeTimedOut(late) from error
        except httpx.HTTPError as error:
            if cut.made.is_set():
                raise NodeTimedOut(late) from error
            raise NodeUnreachable(
                f"{where} cannot be reached ({type(error).__name__}). Is `windrow agent` running "
                f"there, and is {self._url} open to this machine?"
            ) from error
        text = answer_text(made.headers[SIGNATURE], response.status_code, body)
        if not is_from(self._key, text, response.headers.get(ANSWER_SIGNATURE, "")):
            raise ForgedAnswer(
                f"{where}: the answer is not signed by the agent key that fleet.yaml names. "
                "Another machine answered, or something changed it on the way"
            )
        if response.status_code == 200:
            return Answer(body, seconds)
        reason, detail = _refusal(body)
        if response.status_code in _REFUSALS:
            raise NodeRefused(f"{where} is refused: {reason}: {detail}")
        raise TaskFailed(self.name, task, reason, detail)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @staticmethod
    def _body(response: httpx.Response, where: str, max_bytes: int) -> bytes:
        # As it comes over the wire: a few compressed bytes could stand for gigabytes.
        parts, size = [], 0
        for part in response.iter_raw():
            size += len(part)
            if size > max_bytes:
                raise NodeAnswerTooLarge(f"{where} answers with more than {max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)


def _trusting(name: str, certificate: str) -> ssl.SSLContext:
    """Trust in this certificate alone, whatever name it bears: the file is the node's own."""
    try:
        context = ssl.create_default_context(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise NodeUnreachable(
            f"node {name}: the certificate {certificate} (agent_tls in fleet.yaml) cannot be "
            f"read: {error}"
        ) from None
    context.check_hostname = False
    return context


class _Cut:
    """Ends a connection when its time is over, however little the other side sends at a time."""

    def __init__(self) -> None:
        self.made = threading.Event()
        self._link: socket.socket | None = None

    @contextlib.contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Cut after so long, unless it is over by then."""
        timer = threading.Timer(seconds, self._now)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """What httpx tells of a connection in the making."""
        if event == "connection.connect_tcp.complete":
            self._link = info["return_value"].get_extra_info("socket")
            if self.made.is_set():
                self._now()

    def _now(self) -> None:
        self.made.set()
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)


def _refusal(body: bytes) -> tuple[str, str]:
    with contextlib.suppress(BadFrame):
        said = from_json(body)
        return str(said.get("reason"))[:100], str(said.get("detail"))[:1000]
    return "unknown", "the agent does not say why"
