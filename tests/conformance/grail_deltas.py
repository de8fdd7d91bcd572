"""Sparse deltas between checkpoints, in all three codecs (grail-protocol §9.5)."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from windrow.networks.grail.delta import (
    FloatTensor,
    MalformedDelta,
    UnencodableDelta,
    apply_change,
    tensor_delta,
    weights_digest,
)
from windrow.networks.grail.delta_codec import VERSIONS, decode_payload, encode_payload
from windrow.networks.grail.delta_stream import compress, inflate

from ._delta_values import bits, load, raw, tensor
from .framework import Case, VectorFile, assert_close, handles

LIMIT = 2**28


@handles("grail/delta_codec.json", uses=["grail/delta_*.safetensors", "grail/delta_*.bin.zst"])
def delta_codec(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        name = f"case-{index}"
        if "delta_file" in case:
            yield Case(name, partial(check_codec, file, case))
        elif "uncompressed_hex" in case:
            yield Case(name, partial(check_no_changes, case))
        elif "base_bits_hex" in case:
            yield Case(name, partial(check_signed_zero, case))
        elif "result" in case:
            yield Case(name, partial(check_empty_input, case))
        else:
            yield Case(name, partial(check_refusal, case))


def check_no_changes(case: dict[str, Any]) -> None:
    assert encode_payload({}, case["format"]).hex() == case["uncompressed_hex"]


def check_empty_input(case: dict[str, Any]) -> None:
    for format_ in VERSIONS:
        assert [len(decode_payload(b"".join(inflate(BytesIO(), LIMIT)), format_))] * 2 == (
            case["result"]
        )


def check_refusal(case: dict[str, Any]) -> None:
    """Cases that a note alone describes: what the network refuses is refused."""
    for format_ in VERSIONS:
        if "version" in case["note"]:
            header = b'{"version":1,"tensors":[]}'
            with pytest.raises(MalformedDelta):
                decode_payload(len(header).to_bytes(4, "little") + header, format_)
        else:
            assert "scalar" in case["note"], case
            scalar = tensor_delta(bits(torch.tensor(0.0)), bits(torch.tensor(1.0)))
            with pytest.raises(UnencodableDelta):
                encode_payload({"scalar": scalar}, format_)


def check_signed_zero(case: dict[str, Any]) -> None:
    """The network loses a zero's sign; bit by bit it is kept, and the hash holds."""
    base, current = (
        FloatTensor((len(words),), "bfloat16", words.astype("<u2"))
        for words in (
            np.frombuffer(bytes.fromhex(case[f"{side}_bits_hex"]), ">u2")
            for side in ("base", "current")
        )
    )
    assert weights_digest({"": current.bits}) == case["hash_current"]
    lossy = tensor_delta(base, current, signed_zeros=False)
    assert lossy.positions.size == case["nonzero_params"]
    for change, digest in (
        (lossy, case["hash_reconstructed"]),
        (tensor_delta(base, current), case["hash_current"]),
    ):
        rebuilt = replace(base, bits=base.bits.copy())
        apply_change("w", rebuilt, change)
        assert weights_digest({"": rebuilt.bits}) == digest


def check_codec(file: VectorFile, case: dict[str, Any]) -> None:
    stored = load(file.folder / case["tensors_file"])
    base, current = (
        {name.removeprefix(kind): t for name, t in stored.items() if name.startswith(kind)}
        for kind in ("base.", "cur.")
    )
    payload = b"".join(inflate(BytesIO((file.folder / case["delta_file"]).read_bytes()), LIMIT))
    check_payload(payload, case)

    decoded = decode_payload(payload, case["format"])
    assert {name: change.positions.size for name, change in decoded.items()} == case["decoded_nnz"]
    rebuilt = {name: bits(value) for name, value in base.items()}
    for name, change in decoded.items():
        apply_change(name, rebuilt[name], change)
    restored = {name: tensor(value) for name, value in rebuilt.items()}
    assert weights_digest(raw(base)) == case["weights_hash_base"]
    assert weights_digest(raw(current)) == case["weights_hash_current"]
    assert weights_digest(raw(restored)) == case["weights_hash_current"]

    threshold = case["stats"]["threshold"]
    made = {
        name: tensor_delta(
            bits(base[name]), bits(current[name]), signed_zeros=False, threshold=threshold
        )
        for name in base.keys() & current.keys()
    }
    made = {name: change for name, change in made.items() if change.positions.size}
    check_stats(made, base, case["stats"])
    assert {name: list(change.shape) for name, change in made.items()} == case["shapes"]
    ours = encode_payload(made, case["format"])
    check_payload(ours, case)
    assert b"".join(inflate(BytesIO(compress(ours)), LIMIT)) == ours


def check_payload(payload: bytes, expected: dict[str, Any]) -> None:
    length = int.from_bytes(payload[:4], "little")
    assert json.loads(payload[4 : 4 + length]) == expected["header_json"]
    assert hashlib.sha256(payload).hexdigest() == expected["uncompressed_sha256"]


def check_stats(made: dict[str, Any], base: dict[str, Any], expected: dict[str, Any]) -> None:
    changed = sum(change.positions.size for change in made.values())
    total = sum(value.numel() for value in base.values())
    assert (changed, total) == (expected["nonzero_params"], expected["total_params"])
    assert_close([1 - changed / total], [expected["sparsity_ratio"]])
