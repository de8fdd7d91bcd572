"""The key an agent signs its answers with: made on the machine, and worth nothing anywhere else.

It is no wallet. fleet.yaml names its public half, so an answer of another machine, or one changed
on the way, is not taken for the node's.
"""

import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from windrow import WindrowError
from windrow.resources.files import naming_disk_errors

_CONTEXT: Final = b"windrow-agent-v1"
KEY_BYTES: Final = 32


class AgentKeyError(WindrowError):
    """An agent's key file cannot be used."""


def agent_key(path: Path) -> Ed25519PrivateKey:
    """The key at a path, made when missing, for its owner alone. Raises AgentKeyError."""
    with naming_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            content = path.read_bytes()
        else:
            content = os.urandom(KEY_BYTES)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    if len(content) != KEY_BYTES:
        raise AgentKeyError(f"{path} holds {len(content)} bytes, no key of {KEY_BYTES}; delete it")
    return Ed25519PrivateKey.from_private_bytes(content)


def public_half(key: Ed25519PrivateKey) -> str:
    """What fleet.yaml calls `agent_key`: 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def path_of(task: str, node: str, key: str) -> str:
    """Where a node is asked for a task. key: of its agent, 64 hex digits.

    The caller signs the path, so a question is for this machine alone: whoever hands it on to
    another of the operator's machines gets no answer there.
    """
    return f"/tasks/{task}?{urlencode({'node': node, 'agent': key})}"


def answer_text(request_signature: str, status: int, body: bytes) -> bytes:
    """What is signed of an answer: which request it is to, and all of itself."""
    digest = hashlib.sha256(body).hexdigest()
    return b"|".join([_CONTEXT, request_signature.encode(), str(status).encode(), digest.encode()])


def is_from(key: str, text: bytes, signature: str) -> bool:
    """Whether a text is signed by the agent whose public key is `key`; never raises."""
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), text)
    except (ValueError, InvalidSignature):
        return False
    return True
