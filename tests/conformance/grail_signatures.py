"""Commit binding and row signature (grail-protocol §5)."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pytest

from windrow.networks.grail.commit import (
    MalformedCommit,
    commit_binding,
    commit_preimage,
    commit_signature_valid,
    outer_challenge,
    row_signature_valid,
)
from windrow.networks.grail.commitments import commitments_hash, encode_compact
from windrow.networks.grail.sampling import commit_digest
from windrow.networks.grail.tokens import token_hash

from .framework import Case, VectorFile, handles


@handles("grail/commit_binding.json")
def binding(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    listed = vectors["cases"]
    complete = [listed[c["same_as_case"]] | c if "same_as_case" in c else c for c in listed]
    for index, case in enumerate(complete):
        yield Case(f"case-{index}", partial(check_binding, case))
    for index, verdict in enumerate(vectors["verification"]):
        name = f"verification-{index}-{verdict['tamper'].replace(' ', '-')}"
        yield Case(name, partial(check_verdict, complete[verdict["case"]], verdict))


def sketch_hash(sketches: list[int]) -> bytes:
    return commitments_hash(pa.array([sketches], pa.list_(pa.int64())))[0]


def check_binding(case: dict[str, Any]) -> None:
    if "first_item_canonical" in case:
        # An extra key no column holds: only the general JSON form can carry it.
        extra = json.loads(case["first_item_canonical"])
        entries = [extra | {"sketch": sketch} for sketch in case["commitment_sketches"]]
        assert commit_digest(entries).hex() == case["commitments_sha256"]
        return
    tokens_hash, sketches_hash = (
        token_hash(case["tokens"]),
        sketch_hash(case["commitment_sketches"]),
    )
    if case["commitments"] is not None:  # else too long to be listed
        assert [e["sketch"] for e in case["commitments"]] == case["commitment_sketches"]
    (compact,) = encode_compact(pa.array([case["commitment_sketches"]], pa.list_(pa.int64())))
    assert compact.as_py().startswith(case["commitments_canonical_json_head"])
    assert tokens_hash.hex() == case["tokens_sha256"]
    assert sketches_hash.hex() == case["commitments_sha256"]
    fields = (
        tokens_hash,
        case["randomness_hex"],
        case["model_name"],
        case["layer_index"],
        sketches_hash,
    )
    assert commit_binding(*fields).hex() == case["binding_sha256"]
    if "same_as_case" not in case:
        assert commit_preimage(*fields).hex() == case["preimage_hex"]
        commit = signed_commit(case)
        assert verify(commit, case["signer_ss58"])
        assert not verify(commit | {"tokens": [*commit["tokens"], 1]}, case["signer_ss58"])


def signed_commit(case: dict[str, Any]) -> dict[str, Any]:
    return {
        "proof_version": "v5",
        "tokens": case["tokens"],
        "sketches": case["commitment_sketches"],
        "randomness": case["randomness_hex"],
        "model_name": case["model_name"],
        "layer_index": case["layer_index"],
        "signature": case["signature_hex"],
    }


def verify(commit: dict[str, Any], hotkey: str) -> bool:
    return commit_signature_valid(
        hotkey,
        commit["signature"],
        proof_version=commit["proof_version"],
        tokens_hash=token_hash(commit["tokens"]),
        randomness=commit["randomness"],
        model_name=commit["model_name"],
        layer_index=int(commit["layer_index"]),
        commitments_hash=sketch_hash(commit["sketches"]),
    )


def flip_bit(digits: str) -> str:
    return f"{digits[:-1]}{int(digits[-1], 16) ^ 1:x}"


TAMPER: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "none": ("model_name", lambda name: name),
    "proof_version=v4": ("proof_version", lambda _: "v4"),
    "proof_version=v3": ("proof_version", lambda _: "v3"),
    "proof_version missing": ("proof_version", lambda _: None),
    "token[0]+1": ("tokens", lambda tokens: [tokens[0] + 1, *tokens[1:]]),
    "token[0]+2^32 (same hash)": ("tokens", lambda tokens: [tokens[0] + 2**32, *tokens[1:]]),
    "swap first two commitments": ("sketches", lambda s: [s[1], s[0], *s[2:]]),
    "sketch[3]+1": ("sketches", lambda s: [*s[:3], s[3] + 1, *s[4:]]),
    "model name": ("model_name", lambda name: name + "x"),
    "layer 0": ("layer_index", lambda _: 0),
    "layer as string '-1'": ("layer_index", lambda _: "-1"),
    # The columns of a file hold neither of these; nothing changes for the signature.
    "extra model key (ignored)": ("model_name", lambda name: name),
    "rollout field (ignored)": ("model_name", lambda name: name),
    "randomness uppercased": ("randomness", str.upper),
    "randomness changed": ("randomness", flip_bit),
    "beacon missing": ("randomness", lambda _: None),
    "signature with spaces between bytes": (
        "signature",
        lambda text: " ".join(text[i : i + 2] for i in range(0, len(text), 2)),
    ),
    "signature 0x-prefixed": ("signature", lambda text: "0x" + text),
    "signature truncated": ("signature", lambda text: text[:-2]),
    "signature flipped bit": ("signature", flip_bit),
    "other address": ("model_name", lambda name: name),
    "signature over <Bytes>-wrapped digest": ("signature", lambda text: text),
}


def check_verdict(case: dict[str, Any], verdict: dict[str, Any]) -> None:
    commit = signed_commit(case)
    if "signature_hex" in verdict:
        commit["signature"] = verdict["signature_hex"]
    field, change = TAMPER[verdict["tamper"]]
    commit[field] = change(commit[field])
    assert verify(commit, verdict["address"]) == verdict["valid"]


@handles("grail/outer_signature.json")
def row_signature(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    for index, case in enumerate(vectors["cases"]):
        yield Case(f"case-{index}", partial(check_challenge, case))
    for index, case in enumerate(vectors["verification"]):
        yield Case(f"verification-{index}", partial(check_row, case))


def check_challenge(case: dict[str, Any]) -> None:
    fields = case["fields"]
    seed = fields.get("episode_seed", fields.get("sat_seed", ""))
    block_hash, nonce = fields.get("block_hash", ""), fields.get("nonce", "")
    if "error" in case:
        with pytest.raises(MalformedCommit):
            outer_challenge(block_hash, nonce, str(seed))
        return
    challenge = outer_challenge(block_hash, nonce, str(seed))
    assert challenge == case["challenge"]
    if "signature_hex" in case:
        assert challenge.encode() == bytes.fromhex(case["challenge_utf8_hex"])
        assert row_signature_valid(challenge, case["hotkey"], case["signature_hex"])


def check_row(case: dict[str, Any]) -> None:
    row = case["input"]
    verdict = row_signature_valid(row["challenge"], row["hotkey"], row["signature"])
    assert verdict == case["valid"]
