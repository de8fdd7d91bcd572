"""What a pod and its asker say to each other: requests as lines, answers as Pipes messages.

A request is a line of JSON on the pod's standard input. An answer is a custom message of Dagster's
Pipes protocol in the pod's log with its length and SHA-256, then its bytes in parts, since the log
is cut at 16 KiB a line. The pod is not believed: only these messages are read, each field is
checked, and nothing is kept beyond the length that was announced.
"""

import base64
import binascii
import hashlib
import json
import re
from typing import Any, Final

from windrow.engine.fleet.frames import BadFrame, from_json
from windrow.resources.fleet.nodes import NodeAnswerTooLarge, NodeUnreachable, TaskFailed

PART_BYTES: Final = 9216
"""Bytes of an answer in one line of the log; with base64 and JSON below 16 KiB."""
MAX_LINE: Final = 16384
VERSION_FIELD: Final = "__dagster_pipes_version"
_DIGEST: Final = re.compile("[0-9a-f]{64}")


def request_line(ask: str, task: str, request: bytes) -> bytes:
    """A request for the pod's standard input. ask: names it, so answers are not mixed up."""
    fields = {"ask": ask, "task": task, "request": base64.b64encode(request).decode()}
    return json.dumps(fields).encode() + b"\n"


def parse_request(line: bytes, max_bytes: int) -> tuple[str, str, bytes]:
    """Ask, task and request from a line. Raises BadFrame."""
    fields = from_json(line, max_bytes=max_bytes)
    ask, task, text = fields.get("ask"), fields.get("task"), fields.get("request")
    if not isinstance(ask, str) or not isinstance(task, str) or not isinstance(text, str):
        raise BadFrame("a request needs ask, task and request, each a text")
    try:
        return ask, task, base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadFrame(f"a request is no base64: {error}") from error


def announcement(ask: str, body: bytes) -> dict[str, object]:
    """The message that comes before an answer's parts."""
    digest = hashlib.sha256(body).hexdigest()
    return {"ask": ask, "ok": True, "bytes": len(body), "sha256": digest}


def failure(ask: str, reason: str, detail: str) -> dict[str, object]:
    """The message of a task that failed."""
    return {"ask": ask, "ok": False, "reason": reason, "detail": detail[:2000]}


def parts(ask: str, body: bytes) -> list[dict[str, object]]:
    """The messages that carry an answer."""
    return [
        {"ask": ask, "part": index, "data": base64.b64encode(body[at : at + PART_BYTES]).decode()}
        for index, at in enumerate(range(0, len(body), PART_BYTES))
    ]


def pipes_message(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Method and parameters of a line of the log that is a Pipes message, else None."""
    if not line.startswith(b"{") or VERSION_FIELD.encode() not in line:
        return None
    try:
        message = from_json(line, max_bytes=MAX_LINE)
    except BadFrame:
        return None
    method, params = message.get("method"), message.get("params")
    if VERSION_FIELD not in message or not isinstance(method, str):
        return None
    return method, params if isinstance(params, dict) else {}


class Arriving:
    """An answer on its way; parts may come twice, when the log had to be opened again."""

    def __init__(self, node: str, task: str, ask: str, max_bytes: int) -> None:
        self._node = node
        self._task = task
        self._ask = ask
        self._max_bytes = max_bytes
        self._size: int | None = None
        self._digest = ""
        self._body = bytearray()

    def take(self, params: dict[str, Any]) -> bytes | None:
        """The whole answer once a custom message completes it; messages of others are left.

        Raises TaskFailed, NodeAnswerTooLarge, NodeUnreachable.
        """
        said = params.get("payload")
        if not isinstance(said, dict) or said.get("ask") != self._ask:
            return None
        if said.get("ok") is False:
            reason, detail = str(said.get("reason"))[:100], str(said.get("detail"))[:2000]
            raise TaskFailed(self._node, self._task, reason, detail)
        if said.get("ok") is True:
            self._announced(said)
        elif self._size is not None:
            self._part(said)
        return self._whole()

    def _announced(self, said: dict[str, Any]) -> None:
        size, digest = said.get("bytes"), said.get("sha256")
        if type(size) is not int or size < 0 or not isinstance(digest, str):
            raise self._broken("does not say how long its answer is")
        if not _DIGEST.fullmatch(digest):
            raise self._broken("does not say its answer's SHA-256")
        if size > self._max_bytes:
            raise NodeAnswerTooLarge(
                f"node {self._node} answers {self._task} with {size} bytes; "
                f"{self._max_bytes} are read"
            )
        if self._size not in (None, size) or self._digest not in ("", digest):
            raise self._broken("announces two answers to one request")
        self._size, self._digest = size, digest

    def _part(self, said: dict[str, Any]) -> None:
        index, data = said.get("part"), said.get("data")
        due = len(self._body) // PART_BYTES
        if type(index) is not int or not isinstance(data, str) or index < 0:
            raise self._broken("sends a part without its number or its bytes")
        if index < due or len(self._body) == self._size:
            return
        if index > due:
            raise self._broken(
                f"lost part {due} of its answer: the log was cut, containerLogMaxSize of the "
                "kubelet is too small for it"
            )
        try:
            part = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._broken("sends a part that is no base64") from error
        if len(part) != min(PART_BYTES, (self._size or 0) - len(self._body)):
            raise self._broken(f"sends part {index} in another length than is due")
        self._body += part

    def _whole(self) -> bytes | None:
        if self._size is None or len(self._body) != self._size:
            return None
        if hashlib.sha256(self._body).hexdigest() != self._digest:
            raise self._broken("sends other bytes than it announced")
        return bytes(self._body)

    def _broken(self, what: str) -> NodeUnreachable:
        return NodeUnreachable(f"node {self._node} at {self._task} {what}")
