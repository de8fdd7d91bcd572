"""Publishing a FULL checkpoint as a trainer does (grail-protocol §9.1, §9.3)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windrow.engine.ports import Sign
from windrow.networks.grail.checkpoint import (
    CheckpointMetadata,
    Kind,
    checkpoint_prefix,
    kind_prefix,
    ready_key,
    select_ready,
)
from windrow.resources.checkpoints.files import (
    METADATA,
    SIGNATURE,
    CheckpointError,
    VerifiedCheckpoint,
    canonical_metadata,
    check_manifest,
    file_sha256,
    model_files,
    weights_hash,
)
from windrow.resources.storage.object_store import ObjectStore


class CheckpointPublished(CheckpointError):
    """A checkpoint of this window is already READY; others may have used it."""


def write_full_metadata(
    directory: Path,
    *,
    window: int,
    model_name: str,
    env_id: str,
    env_params: Mapping[str, Any],
    generation_params: Mapping[str, Any],
    thinking_mode: str,
    created_at: float,
    training_config: Mapping[str, Any] | None = None,
    git_commit: str = "unknown",
    parent_window: int | None = None,
) -> CheckpointMetadata:
    """Describe the model files of a directory in its metadata.json, as a FULL checkpoint (§9.3).

    created_at: unix seconds. Raises MalformedMetadata and CheckpointError for what nobody could
    use later.
    """
    training = dict(training_config or {})
    document = {
        "window": window,
        "file_manifest": {
            name: file_sha256(directory / name) for name in sorted(model_files(directory))
        },
        "training_config": training,
        "git_commit": git_commit,
        "created_at": created_at,
        "model_name": model_name,
        "parent_window": parent_window,
        "checkpoint_type": "FULL",
        "prev_window": None,
        "anchor_window": None,
        "weights_hash": weights_hash(directory),
        "env_id": env_id,
        "env_params": dict(env_params),
        "generation_params": dict(generation_params),
        "thinking_mode": thinking_mode,
        "config_hash": hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest(),
    }
    metadata = CheckpointMetadata.from_document(document)
    check_manifest(metadata)
    (directory / METADATA).write_text(json.dumps(document, indent=2), encoding="utf-8")
    return metadata


def publish_full(
    store: ObjectStore, checkpoint: VerifiedCheckpoint, *, ready_window: int, sign: Sign
) -> None:
    """Publish a FULL checkpoint; the READY marker, which makes it visible, is written last (§9.1).

    ready_window: the window during which the upload finishes. sign: by the trainer's hotkey.
    Raises CheckpointPublished and ObjectStoreError; a failed attempt may be repeated.
    """
    metadata = checkpoint.metadata
    folder = unpublished_folder(store, metadata.window, "FULL")
    for name in metadata.file_manifest:
        store.put_file(f"{folder}/{name}", checkpoint.directory / name)
    store.put_file(f"{folder}/{METADATA}", checkpoint.directory / METADATA)
    seal(store, folder, metadata.document, sign)
    store.put(ready_key(metadata.window, ready_window), b"")


def unpublished_folder(store: ObjectStore, window: int, kind: Kind) -> str:
    """Where to put a checkpoint's files. Raises CheckpointPublished for one that is READY."""
    published = [info.key for info in store.list(f"{checkpoint_prefix(window)}/")]
    if select_ready(published, before_window=2**63) is not None:
        raise CheckpointPublished(
            f"checkpoint {window} is READY already and may be in use; publish under a later window"
        )
    return kind_prefix(window, kind)


def seal(store: ObjectStore, folder: str, document: Mapping[str, Any], sign: Sign) -> None:
    """Write the signature of a checkpoint's metadata and the marker that names its kind (§9.1)."""
    signature = sign(canonical_metadata(document)).hex()
    store.put(f"{folder}/{SIGNATURE}", signature.encode())
    store.put(f"{folder}/{folder.rpartition('/')[2]}", b"")
