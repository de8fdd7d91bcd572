"""Rebuilding a checkpoint from an earlier one and the deltas since (grail-protocol §9.4, §9.5).

Deltas overwrite values in a copy of the base's weight files, so names, types and shards stay as
they are and memory holds one tensor's changes at a time. The result is a FULL checkpoint like any
other, with a manifest of its own; the DELTA metadata that the trainer signed lies in its metadata,
and the last delta beside it.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from windrow.networks.grail.checkpoint import CheckpointMetadata, MalformedMetadata
from windrow.networks.grail.delta import (
    BITS,
    DeltaMismatch,
    FloatTensor,
    ValueType,
    apply_change,
    weights_digest,
)
from windrow.networks.grail.delta_codec import SparseDelta
from windrow.resources.checkpoints.delta_links import BrokenChain, Link, fetch_link, open_delta
from windrow.resources.checkpoints.files import (
    DELTA_FILES,
    KEPT_DELTA,
    METADATA,
    VerifiedCheckpoint,
    WrongHash,
    check_signature,
    file_sha256,
    model_files,
    stored_tensors,
    verify_checkpoint,
)
from windrow.resources.models.stored_tensors import FLOAT_TYPES, StoredTensor, TensorBytes, mapped
from windrow.resources.storage.object_store import ObjectStore

REBUILT_FROM: Final = "rebuilt_from"
DELTAS: Final = "deltas"
_KEPT_FIELDS: Final = ("window", "env_id", "env_params", "thinking_mode", "policy", "weights_hash")


def wanted_files(links: Sequence[Link]) -> dict[str, str]:
    """SHA-256 of every file that ``rebuild`` fetches, by its place below the folder it fills."""
    return {
        f"{DELTAS}/{link.metadata.window}/{name}": link.metadata.file_manifest[name]
        for link in links
        for name in DELTA_FILES
    }


def rebuild(
    base: VerifiedCheckpoint,
    links: Sequence[Link],
    store: ObjectStore,
    directory: Path,
    trainer_hotkey: str | None,
) -> VerifiedCheckpoint:
    """Fill a folder with the checkpoint that the last link describes.

    base: the checkpoint that the first link builds on. directory: may hold some of wanted_files.
    Every link's weights hash is checked. One that does not hold is forgiven, with a note, only
    where a later one does: the weights are then the trainer's again.
    Raises CheckpointError, MalformedDelta, DeltaMismatch, ObjectStoreError.
    """
    for name in model_files(base.directory):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base.directory / name, directory / name)
    tensors = stored_tensors(directory)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    doubt, notes = "", []
    with mapped(tensors, writable=True) as weights:
        for link in links:
            folder = directory / DELTAS / str(link.metadata.window)
            fetch_link(store, link, folder)
            with open_delta(folder, parameters, scratch=folder) as changes:
                _apply(changes, tensors, weights)
            expected = link.metadata.weights_hash
            if expected is None:
                continue
            digest = weights_digest(weights)
            if digest != expected:
                doubt = doubt or wrong_hash(link.metadata.window, digest, expected)
            elif doubt:
                notes.append(f"{doubt}; checkpoint {link.metadata.window} is right again")
                doubt = ""
    if doubt:
        raise WrongHash(f"{doubt}. Wait for the next FULL checkpoint")
    folder.rename(directory / KEPT_DELTA)
    shutil.rmtree(directory / DELTAS)
    _describe(directory, links[-1], base.metadata.window, notes)
    return verify_rebuilt(directory, trainer_hotkey)


def wrong_hash(window: int, digest: str, expected: str) -> str:
    """What a hash that differs after a delta most likely means, in words."""
    return (
        f"the weights rebuilt for checkpoint {window} hash to {digest}, the trainer published "
        f"{expected}: the delta may have lost a zero that changed its sign or a tensor's type, "
        "which the network's own encoder does (grail-protocol §13 R9), or was altered"
    )


def verify_cached(directory: Path, trainer_hotkey: str | None) -> VerifiedCheckpoint:
    """Check a checkpoint of the local cache, fetched or rebuilt. Raises as verify_checkpoint."""
    text = directory / METADATA
    if text.is_file() and REBUILT_FROM in CheckpointMetadata.parse(text.read_bytes()).document:
        return verify_rebuilt(directory, trainer_hotkey)
    return verify_checkpoint(directory, trainer_hotkey)


def verify_rebuilt(directory: Path, trainer_hotkey: str | None) -> VerifiedCheckpoint:
    """Check a checkpoint that ``rebuild`` made. Raises as verify_checkpoint.

    The trainer's signature must hold for the DELTA's metadata, and the weights must have the hash
    named there. Only for folders that this machine wrote: the manifest is nobody's word but its.
    """
    verified = verify_checkpoint(directory)
    origin = verified.metadata.document[REBUILT_FROM]
    if not isinstance(origin, Mapping) or not isinstance(origin.get("notes"), list):
        raise MalformedMetadata(f"{directory / METADATA} does not say what it was rebuilt from")
    delta = CheckpointMetadata.from_document(origin.get("document"))
    for field in _KEPT_FIELDS:
        if getattr(delta, field) != getattr(verified.metadata, field):
            raise MalformedMetadata(
                f"{directory / METADATA} and the DELTA it was rebuilt from disagree on {field}"
            )
    notes = [*map(str, origin["notes"]), *verified.notes]
    if trainer_hotkey is not None:
        check_signature(delta, str(origin.get("signature") or "").encode(), trainer_hotkey)
        notes = [note for note in notes if not note.startswith("signature not checked")]
    return replace(verified, notes=tuple(notes))


@contextmanager
def kept_delta(checkpoint: VerifiedCheckpoint, base_window: int) -> Iterator[SparseDelta]:
    """The delta that made a cached checkpoint of the one of another window.

    Raises BrokenChain where it was made of another one, or not by a delta; MalformedMetadata,
    MalformedDelta, and OSError where the delta's files are not there.
    """
    window, origin = checkpoint.metadata.window, checkpoint.metadata.document.get(REBUILT_FROM)
    document = origin.get("document") if isinstance(origin, Mapping) else None
    previous = None if document is None else CheckpointMetadata.from_document(document).prev_window
    if previous != base_window:
        made = "fetched whole" if previous is None else f"made of {previous} by a delta"
        raise BrokenChain(f"checkpoint {window} was {made}, not of {base_window}")
    stored = stored_tensors(checkpoint.directory)
    parameters = sum(math.prod(tensor.shape) for tensor in stored.values())
    with open_delta(checkpoint.directory / KEPT_DELTA, parameters) as changes:
        yield changes


def changed_type(name: str, tensors: Mapping[str, StoredTensor]) -> ValueType:
    """The type of a stored tensor that a delta changes.

    Raises DeltaMismatch where there is no tensor of floats by that name.
    """
    stored = tensors.get(name)
    if stored is None or stored.dtype not in FLOAT_TYPES:
        found = "has none" if stored is None else f"holds it as {stored.dtype}"
        raise DeltaMismatch(
            f"the delta changes a tensor of floats {name!r:.120}, but the checkpoint it builds on "
            f"{found}; the delta is of another checkpoint"
        )
    return FLOAT_TYPES[stored.dtype]


def _apply(changes: SparseDelta, tensors: Mapping[str, StoredTensor], weights: TensorBytes) -> None:
    for name in changes:
        dtype = changed_type(name, tensors)
        bits = np.frombuffer(weights[name], BITS[dtype])
        apply_change(name, FloatTensor(tensors[name].shape, dtype, bits), changes[name])


def _describe(directory: Path, link: Link, base_window: int, notes: Sequence[str]) -> None:
    metadata = link.metadata
    document = dict(metadata.document) | {
        "file_manifest": {
            name: file_sha256(directory / name) for name in sorted(model_files(directory))
        },
        "checkpoint_type": "FULL",
        "prev_window": None,
        "anchor_window": None,
        "reconstructed_from_delta": True,
        "original_anchor_window": (
            base_window if metadata.anchor_window is None else metadata.anchor_window
        ),
        REBUILT_FROM: {
            "document": dict(metadata.document),
            "signature": link.signature,
            "notes": list(notes),
        },
    }
    (directory / METADATA).write_text(json.dumps(document), encoding="utf-8")
