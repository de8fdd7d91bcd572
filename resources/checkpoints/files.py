"""What makes a checkpoint directory trustworthy: its names, its hashes, its signature.

The network checks only the SHA-256 of each file. Here names, kinds and sizes are bounded too, the
weights hash is recomputed for FULL checkpoints, and the trainer's signature is verified when its
hotkey is known (grail-protocol §9.4, §13 W7).
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from safetensors import SafetensorError

from windrow import WindrowError
from windrow.networks.grail.checkpoint import CheckpointMetadata
from windrow.networks.grail.delta import weights_digest
from windrow.networks.signatures import verify_signature
from windrow.resources.checkpoints.digests import digest_once
from windrow.resources.models.stored_tensors import StoredTensor, mapped, tensors_of

METADATA: Final = "metadata.json"
SIGNATURE: Final = "manifest.sig"
MARKER: Final = "FULL"
KEPT_DELTA: Final = "delta"
"""Folder of a rebuilt checkpoint with the delta that led to it, for models of the one before."""
DELTA_METADATA: Final = "delta_metadata.json"
PAYLOAD: Final = "delta_sparse.bin.zst"
DELTA_FILES: Final = (DELTA_METADATA, PAYLOAD)
OUTSIDE_MANIFEST: Final = frozenset(
    {METADATA, SIGNATURE, MARKER, *(f"{KEPT_DELTA}/{name}" for name in DELTA_FILES)}
)
FILE_KINDS: Final = frozenset({".safetensors", ".json", ".jinja", ".txt", ".model"})
HASH_THREADS: Final = 8


class CheckpointError(WindrowError):
    """A checkpoint cannot be used as it is."""


class UnsafeCheckpoint(CheckpointError):
    """A manifest names files that are never fetched or loaded."""


class MissingCheckpointFile(CheckpointError):
    """A file that the manifest lists, or one that every checkpoint has, is not there."""


class UnexpectedCheckpointFile(CheckpointError):
    """A checkpoint directory holds a file that its manifest does not list."""


class WrongHash(CheckpointError):
    """The bytes of a checkpoint are not those its metadata describes."""


class WrongSignature(CheckpointError):
    """The metadata of a checkpoint is not signed by the trainer."""


class DamagedWeights(CheckpointError):
    """A weight file cannot be read, or a tensor in it cannot be used."""


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A directory whose files are all those, and only those, that its metadata describes.

    weights_hash: XXH3-128 hex of the weights, recomputed.
    notes: what could not be checked, in words.
    """

    directory: Path
    metadata: CheckpointMetadata
    weights_hash: str
    notes: tuple[str, ...]


def verify_checkpoint(directory: Path, trainer_hotkey: str | None = None) -> VerifiedCheckpoint:
    """Read and check every file of a FULL checkpoint directory.

    trainer_hotkey: SS58 address that must have signed the metadata; None leaves it unchecked.
    Raises MalformedMetadata, UnsafeCheckpoint, MissingCheckpointFile, UnexpectedCheckpointFile,
    WrongHash, WrongSignature, DamagedWeights.
    """
    metadata = CheckpointMetadata.parse(_read(directory / METADATA))
    check_manifest(metadata)
    if trainer_hotkey is not None:
        check_signature(metadata, _read(directory / SIGNATURE), trainer_hotkey)
    window, manifest = metadata.window, metadata.file_manifest
    present = model_files(directory)
    for name in sorted(present - manifest.keys()):
        raise UnexpectedCheckpointFile(
            f"{name} lies in the folder of checkpoint {window} but not in its manifest; remove it "
            "or fetch the checkpoint again"
        )
    for name in sorted(manifest.keys() - present):
        raise MissingCheckpointFile(
            f"{name} of checkpoint {window} is in the manifest but not there; fetch the "
            "checkpoint again"
        )
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = pool.map(lambda name: file_sha256(directory / name), manifest)
        for (name, expected), actual in zip(manifest.items(), digests, strict=True):
            if actual != expected:
                raise WrongHash(
                    f"{name} of checkpoint {window} has SHA-256 {actual}, the manifest says "
                    f"{expected}; the file is damaged or was replaced, fetch it again or wait for "
                    "the next checkpoint"
                )
    notes = [] if trainer_hotkey else ["signature not checked: no trainer hotkey is configured"]
    weights = weights_hash(directory)
    if metadata.weights_hash is None:
        notes.append("weights hash not checked: the trainer published none")
    elif metadata.weights_hash != weights:
        raise WrongHash(
            f"the weights of checkpoint {window} hash to {weights}, the trainer published "
            f"{metadata.weights_hash}; wait for the next checkpoint"
        )
    return VerifiedCheckpoint(directory, metadata, weights, tuple(notes))


def model_files(directory: Path) -> set[str]:
    """Relative names of the files below a directory that a manifest must list."""
    paths = (path for path in directory.rglob("*") if not path.is_dir())
    return {path.relative_to(directory).as_posix() for path in paths} - OUTSIDE_MANIFEST


def check_manifest(metadata: CheckpointMetadata) -> None:
    """Refuse a manifest that is empty, or names files no checkpoint needs or two alike.

    Raises UnsafeCheckpoint. CheckpointMetadata.parse has seen to it that names stay below the
    folder.
    """
    names = list(metadata.file_manifest)
    if not names:
        raise UnsafeCheckpoint(
            f"checkpoint {metadata.window} lists no files, so nothing of it can be verified"
        )
    folded: dict[str, str] = {}
    for name in names:
        if name in OUTSIDE_MANIFEST or PurePosixPath(name).suffix not in FILE_KINDS:
            raise UnsafeCheckpoint(
                f"checkpoint {metadata.window} lists {name!r}; only "
                f"{', '.join(sorted(FILE_KINDS))} files are fetched"
            )
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise UnsafeCheckpoint(
                f"checkpoint {metadata.window} lists {other!r} and {name!r}, which are one file "
                "on some disks"
            )


def check_signature(metadata: CheckpointMetadata, signature: bytes, trainer_hotkey: str) -> None:
    """Raises WrongSignature unless the trainer signed exactly this metadata (§9.3)."""
    text = signature.decode("ascii", errors="replace").strip()
    if not verify_signature(trainer_hotkey, canonical_metadata(metadata.document), text):
        raise WrongSignature(
            f"manifest.sig of checkpoint {metadata.window} is no signature of its metadata by "
            f"{trainer_hotkey}; the bucket was altered or the configured trainer hotkey is wrong"
        )


def canonical_metadata(document: Mapping[str, Any]) -> bytes:
    """What manifest.sig signs: the metadata as compact JSON with sorted keys (§9.3)."""
    return json.dumps(dict(document), sort_keys=True, separators=(",", ":")).encode()


def file_sha256(path: Path) -> str:
    """SHA-256 hex of a file, read once in a process while it stays as it is."""

    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return digest_once("sha256", [path], read)


def weights_hash(directory: Path) -> str:
    """XXH3-128 hex over the raw bytes of all tensors in name order (§9.5).

    Tensors of all weight files together, in their stored type, row-major; read once in a process
    while the files stay as they are.
    Raises DamagedWeights, MissingCheckpointFile.
    """

    def read() -> str:
        with mapped(stored_tensors(directory)) as tensors:
            return weights_digest(tensors)

    return digest_once("weights", sorted(directory.glob("*.safetensors")), read)


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of the weight files, and where it lies.

    Raises DamagedWeights for a truncated file or a tensor that two files hold, and
    MissingCheckpointFile when there is no weight file.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        try:
            found = tensors_of(path)
        except SafetensorError as error:
            raise DamagedWeights(f"{path.name} is no whole safetensors file: {error}") from error
        for name, tensor in found.items():
            other = tensors.setdefault(name, tensor)
            if other is not tensor:
                raise DamagedWeights(f"tensor {name} is in {other.path.name} and {path.name}")
    if not tensors:
        raise MissingCheckpointFile(f"{directory} holds no *.safetensors; nothing can be loaded")
    return tensors


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingCheckpointFile(f"{path} is missing; fetch the checkpoint again")
    return path.read_bytes()
