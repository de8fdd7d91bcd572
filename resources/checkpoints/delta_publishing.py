"""Publishing a DELTA checkpoint as a trainer does (grail-protocol §9.1, §9.5)."""

import hashlib
import json
from pathlib import Path

import numpy as np

from windrow.engine.ports import Sign
from windrow.networks.grail.checkpoint import CheckpointMetadata, ready_key
from windrow.networks.grail.delta import (
    BITS,
    FloatTensor,
    TensorDelta,
    UnencodableDelta,
    tensor_delta,
)
from windrow.networks.grail.delta_codec import DeltaFormat, encode_payload
from windrow.networks.grail.delta_stream import compress
from windrow.resources.checkpoints.files import (
    DELTA_METADATA,
    METADATA,
    PAYLOAD,
    VerifiedCheckpoint,
    stored_tensors,
)
from windrow.resources.checkpoints.publishing import seal, unpublished_folder
from windrow.resources.models.stored_tensors import FLOAT_TYPES, StoredTensor, TensorBytes, mapped
from windrow.resources.storage.object_store import ObjectStore


def publish_delta(
    store: ObjectStore,
    previous: VerifiedCheckpoint,
    current: VerifiedCheckpoint,
    *,
    anchor_window: int,
    ready_window: int | None,
    sign: Sign,
    format: DeltaFormat = "sparse_codec_v3.1",  # noqa: A002
) -> CheckpointMetadata:
    """Publish what changed since the previous checkpoint; the READY marker is written last.

    Compared bit by bit, so a consumer rebuilds the very weights; the network's own encoder loses
    the sign of zeros (§13 R9). anchor_window: of the FULL checkpoint that the chain ends at.
    ready_window: the window during which the upload finishes; None leaves the checkpoint unmarked,
    for a window that gets a FULL one too, published next. sign: by the trainer's hotkey.

    Raises UnencodableDelta where only a FULL checkpoint will do, CheckpointPublished and
    ObjectStoreError; a failed attempt may be repeated.
    """
    window = current.metadata.window
    _check_equal_files(previous, current)
    changes, total = _changes(previous.directory, current.directory)
    changed = sum(change.positions.size for change in changes.values())
    description = {
        "format": format,
        "threshold": 0.0,
        "prev_window": previous.metadata.window,
        "anchor_window": anchor_window,
        "shapes": {name: list(change.shape) for name, change in changes.items()},
        "total_params": total,
        "nonzero_params": changed,
        "sparsity_ratio": 1 - changed / total if total else 1.0,
    }
    files = {
        DELTA_METADATA: json.dumps(description, indent=2).encode(),
        PAYLOAD: compress(encode_payload(changes, format)),
    }
    document = dict(current.metadata.document) | {
        "file_manifest": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "parent_window": previous.metadata.window,
        "checkpoint_type": "DELTA",
        "prev_window": previous.metadata.window,
        "anchor_window": anchor_window,
        "weights_hash": current.weights_hash,
    }
    folder = unpublished_folder(store, window, "DELTA")
    for name, data in files.items():
        store.put(f"{folder}/{name}", data)
    store.put(f"{folder}/{METADATA}", json.dumps(document, indent=2).encode())
    seal(store, folder, document, sign)
    if ready_window is not None:
        store.put(ready_key(window, ready_window), b"")
    return CheckpointMetadata.from_document(document)


def _check_equal_files(previous: VerifiedCheckpoint, current: VerifiedCheckpoint) -> None:
    """A DELTA carries weights only; consumers take all else from the checkpoint before it."""
    before, after = (
        {
            name: digest
            for name, digest in checkpoint.metadata.file_manifest.items()
            if not name.endswith((".safetensors", ".safetensors.index.json"))
        }
        for checkpoint in (previous, current)
    )
    if before != after:
        name = min(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )
        raise UnencodableDelta(
            f"{name} differs between checkpoints {previous.metadata.window} and "
            f"{current.metadata.window}, and a DELTA cannot carry it; publish a FULL checkpoint"
        )


def _changes(previous: Path, current: Path) -> tuple[dict[str, TensorDelta], int]:
    """Changed tensors by name, and the number of values there are in all."""
    before, after = stored_tensors(previous), stored_tensors(current)
    if before.keys() != after.keys():
        raise UnencodableDelta(
            f"tensor {min(before.keys() ^ after.keys())} is in one of the two checkpoints only; "
            "publish a FULL checkpoint"
        )
    changes, total = {}, 0
    with mapped(before) as old, mapped(after) as new:
        for name in sorted(after):
            if not after[name].shape:
                raise UnencodableDelta(
                    f"{name} is a scalar, on which the network's consumers fail when they check a "
                    "DELTA's weights hash (grail-validation §21); publish a FULL checkpoint"
                )
            values = _values(name, after[name], new)
            change = tensor_delta(_values(name, before[name], old), values)
            total += values.bits.size
            if change.positions.size:
                changes[name] = change
    return changes, total


def _values(name: str, tensor: StoredTensor, weights: TensorBytes) -> FloatTensor:
    dtype = FLOAT_TYPES.get(tensor.dtype)
    if dtype is None:
        raise UnencodableDelta(f"{name} is of type {tensor.dtype}; publish a FULL checkpoint")
    return FloatTensor(tensor.shape, dtype, np.frombuffer(weights[name], BITS[dtype]))
