"""What a miner signs of a rollout, and how the signatures verify (grail-protocol §5)."""

import hashlib
from typing import Final

from windrow import WindrowError
from windrow.networks.grail.constants import ACCEPTED_PROOF_VERSIONS
from windrow.networks.grail.prf import MalformedRandomness, normalise_hex
from windrow.networks.signatures import verify_signature

DOMAIN: Final = b"grail-commit-v1"


class MalformedCommit(WindrowError):
    """A commit's fields cannot be put in signed form."""


def commit_preimage(
    tokens_hash: bytes,
    randomness: str,
    model_name: str | None,
    layer_index: int,
    commitments_hash: bytes,
) -> bytes:
    """The bytes a commit binding hashes: a domain tag, then five length-prefixed fields (§5.2).

    tokens_hash, commitments_hash: 32 bytes. randomness: R_m as hex.
    Raises MalformedRandomness, or MalformedCommit: a layer beyond 32 bits, a name not UTF-8.
    """
    try:
        layer = layer_index.to_bytes(4, "big", signed=True)
        name = (model_name or "").encode()
    except (OverflowError, UnicodeEncodeError) as error:
        raise MalformedCommit(
            f"layer {layer_index!r:.40} of model {model_name!r:.80} cannot be signed: {error}"
        ) from error
    fields = (tokens_hash, normalise_hex(randomness), name, layer, commitments_hash)
    return DOMAIN + b"".join(len(f).to_bytes(4, "big") + f for f in fields)


def commit_binding(
    tokens_hash: bytes,
    randomness: str,
    model_name: str | None,
    layer_index: int,
    commitments_hash: bytes,
) -> bytes:
    """The 32 bytes a miner signs of a commit (§5.2). Arguments and errors as commit_preimage."""
    preimage = commit_preimage(tokens_hash, randomness, model_name, layer_index, commitments_hash)
    return hashlib.sha256(preimage).digest()


def commit_signature_valid(
    hotkey: str,
    signature: str,
    *,
    proof_version: str | None,
    tokens_hash: bytes,
    randomness: str | None,
    model_name: str | None,
    layer_index: int,
    commitments_hash: bytes,
) -> bool:
    """Whether a commit of an accepted version is signed by ``hotkey``; never raises (C4)."""
    if proof_version not in ACCEPTED_PROOF_VERSIONS or randomness is None:
        return False
    try:
        binding = commit_binding(tokens_hash, randomness, model_name, layer_index, commitments_hash)
    except (MalformedCommit, MalformedRandomness):
        return False
    return verify_signature(hotkey, binding, signature)


def outer_challenge(block_hash: str, nonce: int | str, seed: str = "") -> str:
    """The text a row's own signature covers (§5.3). Raises MalformedCommit for other types."""
    if not isinstance(block_hash, str) or not isinstance(nonce, int | str):
        raise MalformedCommit(
            f"a challenge needs a block hash text and an integer nonce, "
            f"not {block_hash!r:.80} and {nonce!r:.80}"
        )
    return f"{seed}|{block_hash}|{nonce}"


def row_signature_valid(challenge: str, hotkey: str, signature: str) -> bool:
    """Whether a row's own challenge text is signed by the row's own hotkey (§5.3); never raises.

    This is all the network checks; that the challenge and the hotkey are the right ones is not
    part of it (§13, W4).
    """
    if not challenge or not hotkey or not signature:
        return False
    try:
        message = challenge.encode()
    except UnicodeEncodeError:
        return False
    return verify_signature(hotkey, message, signature)
