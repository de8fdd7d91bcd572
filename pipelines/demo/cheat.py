"""A node that cheats: it answers with work it did before, under the new challenge's name."""

import hashlib
from typing import Any

from windrow.engine.fleet.frames import from_json, to_json
from windrow.resources.fleet.nodes import Answer, NodeAccess

PREPARED = "00" * 32
CHEATED = ("attestation.commit", "attestation.open", "gemm_proof.commit", "gemm_proof.open")


class PreparedAnswers:
    """Honest work of one challenge of its own choice, whatever it is asked; facts are true.

    So it needs the device once, and then only a disk. Everything it sends has the right form, the
    right session and good roots.
    """

    def __init__(self, node: NodeAccess) -> None:
        self._node = node

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """See NodeAccess."""
        if task not in CHEATED:
            return self._node.ask(task, request, timeout=timeout, max_bytes=max_bytes)
        asked = from_json(request)
        answer = self._node.ask(
            task, to_json(_prepared(asked)), timeout=timeout, max_bytes=max_bytes
        )
        return Answer(_renamed(answer.body, asked), answer.seconds)

    def close(self) -> None:
        """See NodeAccess."""
        self._node.close()


def _prepared(asked: dict[str, Any]) -> dict[str, Any]:
    if "challenge" in asked:  # a request to open an attestation holds its challenge
        return asked | {"challenge": _prepared(asked["challenge"])}
    return asked | {("nonce" if "nonce" in asked else "session"): PREPARED}


def _renamed(body: bytes, asked: dict[str, Any]) -> bytes:
    """A frame whose header names the session that was asked for; other answers name none."""
    line, end, arrays = body.partition(b"\n")
    frame = from_json(line)
    if "header" not in frame:
        return body
    challenge = asked.get("challenge", asked)
    session = challenge.get("session") or hashlib.sha256(to_json(challenge)).hexdigest()
    return to_json(frame | {"header": frame["header"] | {"session": session}}) + end + arrays
