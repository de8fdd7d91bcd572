"""The sparse codec, deltas between weights and their hash (grail-validation §20, §21)."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from windrow.networks.grail.delta import (
    MalformedDelta,
    TensorDelta,
    UnencodableDelta,
    apply_change,
    tensor_delta,
    weights_digest,
)
from windrow.networks.grail.delta_codec import (
    VERSIONS,
    SparseDelta,
    decode_payload,
    encode_payload,
)
from windrow.networks.grail.delta_stream import compress, inflate

from ._delta_values import bits, coordinates, load, raw, tensor
from ._validation_values import load as load_json
from .framework import Case, VectorFile, assert_close, handles

LIMIT = 2**28


@handles("grail-validation/sparse_codec/cases.json", uses=["grail-validation/sparse_codec/*"])
def sparse_codec(file: VectorFile) -> Iterator[Case]:
    vectors = load_json(file)
    yield Case("formats", partial(check_formats, vectors))
    for case in vectors["cases"]:
        for version, expected in case["formats"].items():
            name = f"{case['name']}-{version}"
            format_ = vectors["format_ids"][version]
            check = check_refused_input if "encode_error" in expected else check_encoding
            yield Case(name, partial(check, file.folder, case, format_, expected))
    for case in vectors["decode_errors"]:
        format_ = vectors["format_ids"][case["decoder"]]
        yield Case(f"decode-{case['name']}", partial(check_hostile, case, format_))


def check_formats(vectors: dict[str, Any]) -> None:
    ids = vectors["format_ids"]
    assert {ids[key]: number for key, number in vectors["version_numbers"].items()} == VERSIONS


def check_encoding(folder: Path, case: dict[str, Any], format_: Any, want: dict[str, Any]) -> None:
    delta = given(load(folder / case["input"]), case["shapes"])
    payload = encode_payload(delta, format_)
    assert len(payload) == want["uncompressed_len"]
    assert hashlib.sha256(payload).hexdigest() == want["uncompressed_sha256"]
    header = payload[4 : 4 + int.from_bytes(payload[:4], "little")]
    assert json.loads(header) == want["header_json"]
    assert hashlib.sha256(header).hexdigest() == want["header_bytes_sha256"]

    for stored in ((folder / want["file"]).read_bytes(), compress(payload)):
        decoded = decode(stored, format_)
        assert {name: list(change.shape) for name, change in decoded.items()} == (
            want["decoded_shapes"]
        )
        if want["decoded"] is not None:
            check_decoded(decoded, load(folder / want["decoded"]))


def check_decoded(decoded: SparseDelta, expected: dict[str, Tensor]) -> None:
    for name, change in decoded.items():
        indices = expected[f"{name}.indices"]
        values = expected[f"{name}.values"]
        # The network's v2 decoder returns flat positions, the others rows and columns.
        flat = indices.ndim == 1
        assert indices.tolist() == (change.positions.tolist() if flat else coordinates(change))
        assert raw({"": tensor(change)}) == raw({"": values})


def check_refused_input(
    folder: Path, case: dict[str, Any], format_: Any, want: dict[str, Any]
) -> None:
    """What the network's encoder raises ValueError for cannot be said with ours, or is refused.

    A tensor of unknown shape has no TensorDelta at all, so KeyError comes from this handler.
    """
    with pytest.raises((UnencodableDelta, MalformedDelta, KeyError)):
        encode_payload(given(load(folder / case["input"]), case["shapes"]), format_)


def check_hostile(case: dict[str, Any], format_: Any) -> None:
    stored = bytes.fromhex(case["bytes_hex"])
    if case["expected"].get("result") == "empty":
        assert not decode(stored, format_)
        return
    assert "error" in case["expected"], case
    with pytest.raises(MalformedDelta):
        decode(stored, format_)


def given(tensors: dict[str, Tensor], shapes: dict[str, list[int]]) -> dict[str, TensorDelta]:
    """The network's sparse tensors: values, and indices that are flat, [1, n] or [2, n].

    As its encoder does, values of any other type become float32, and values without indices are
    left out.
    """
    names = [key.removesuffix(".indices") for key in tensors if key.endswith(".indices")]
    return {
        name: sparse(shapes[name], tensors[f"{name}.indices"], tensors[f"{name}.values"])
        for name in names
    }


def sparse(shape: list[int], indices: Tensor, values: Tensor) -> TensorDelta:
    if values.dtype == torch.float64:
        values = values.float()
    width = int(np.prod(shape[1:], dtype=np.int64))
    index = indices.numpy().astype(np.int64)
    flat = index[0] * width + index[1] if index.ndim == 2 and len(index) == 2 else index.ravel()
    kept = bits(values)
    return TensorDelta.sorted_by_position(tuple(shape), kept.dtype, flat, kept.bits)


def decode(stored: bytes, format_: Any) -> SparseDelta:
    decoded = decode_payload(b"".join(inflate(BytesIO(stored), LIMIT)), format_)
    for name in decoded:
        decoded[name]
    return decoded


@handles("grail-validation/delta/cases.json", uses=["grail-validation/delta/*"])
def delta(file: VectorFile) -> Iterator[Case]:
    vectors = load_json(file)
    for index, case in enumerate(vectors["cases"]):
        yield Case(case["name"], partial(check_delta, file.folder / f"case{index}", case))
    yield Case("chain", partial(check_chain, file.folder, vectors["chain"]))
    for case in vectors["hash_only"]:
        yield Case(f"hash-{case['file']}", partial(check_hash_only, file.folder, case))


def check_delta(stem: Path, case: dict[str, Any]) -> None:
    base, current, reconstructed = (
        load(stem.with_name(f"{stem.name}.{kind}.safetensors"))
        for kind in ("base", "current", "reconstructed")
    )
    check_network(stem, case, base, current, reconstructed)
    if base.keys() == current.keys():
        check_lossless(case, base, current)
    for kind, tensors in (
        ("base", base),
        ("current", current),
        ("reconstructed", reconstructed),
    ):
        check_hash(tensors, case[f"hash_{kind}"])


def check_network(
    stem: Path,
    case: dict[str, Any],
    base: dict[str, Tensor],
    current: dict[str, Tensor],
    reconstructed: dict[str, Tensor],
) -> None:
    """What the network's own rules make of the pair, its losses included."""
    changes = {}
    for name in base.keys() & current.keys():
        change = tensor_delta(
            bits(base[name]),
            bits(current[name]),
            signed_zeros=False,
            threshold=case["threshold"],
        )
        if change.positions.size:
            changes[name] = change
    total = sum(base[name].numel() for name in base.keys() & current.keys())
    changed = sum(change.positions.size for change in changes.values())
    stats = case["stats"]
    assert (total, changed) == (stats["total_params"], stats["nonzero_params"])
    assert_close([1 - changed / total], [stats["sparsity_ratio"]], rel=1e-12)
    assert {name: list(change.shape) for name, change in changes.items()} == case["shapes"]
    assert bool(changes) == case["has_sparse"]
    if case["has_sparse"]:
        stored = load(stem.with_name(f"{stem.name}.sparse.safetensors"))
        assert {key.rpartition(".")[0] for key in stored} == changes.keys()
        for name, change in changes.items():
            assert stored[f"{name}.indices"].tolist() == coordinates(change)
            assert raw({"": tensor(change)}) == raw({"": stored[f"{name}.values"]})

    # The network casts every tensor to the type of the first one.
    dtype = base[case["dtype_source_tensor"]].dtype
    rebuilt = {name: bits(value.to(dtype)) for name, value in base.items()}
    for name, change in changes.items():
        values = bits(tensor(change).to(dtype))
        apply_change(
            name,
            rebuilt[name],
            TensorDelta(change.shape, values.dtype, change.positions, values.bits),
        )
    restored = {name: tensor(value) for name, value in rebuilt.items()}
    assert raw(restored) == raw(reconstructed)
    matches = restored.keys() == current.keys() and raw(restored) == raw(current)
    assert matches == case["reconstruction_matches_current"]


def check_lossless(
    case: dict[str, Any], base: dict[str, Tensor], current: dict[str, Tensor]
) -> None:
    """Our own delta always rebuilds the very bits: signed zeros, types and scalars included."""
    rebuilt = {name: bits(value) for name, value in base.items()}
    for name in base:
        change = tensor_delta(bits(base[name]), bits(current[name]))
        apply_change(name, rebuilt[name], change)
    assert raw({name: tensor(value) for name, value in rebuilt.items()}) == raw(current)


def check_hash(tensors: dict[str, Tensor], expected: str) -> None:
    """The network's hashing fails on scalars, and on nothing else."""
    has_scalar = any(value.ndim == 0 for value in tensors.values())
    assert expected.startswith("error:") == has_scalar
    if not has_scalar:
        assert weights_digest(raw(tensors)) == expected


def check_chain(folder: Path, chain: dict[str, Any]) -> None:
    folder = folder / "chain"
    state = {name: bits(value) for name, value in load(folder / "anchor.safetensors").items()}

    def digest() -> str:
        return weights_digest({name: value.bits for name, value in state.items()})

    assert digest() == chain["anchor_hash"]
    for link in chain["links"]:
        changes = decode((folder / link["file"]).read_bytes(), link["format"])
        for name, change in changes.items():
            apply_change(name, state[name], change)
        assert digest() == link["weights_hash_after"]
        changed = sum(change.positions.size for change in changes.values())
        assert changed == link["stats"]["nonzero_params"]
    final = load(folder.parent / chain["final"])
    assert raw({name: tensor(value) for name, value in state.items()}) == raw(final)


def check_hash_only(folder: Path, case: dict[str, Any]) -> None:
    tensors = load(folder / case["file"])
    assert sorted(tensors) == case["sorted_names"]
    assert weights_digest(raw(tensors)) == case["hash"]
