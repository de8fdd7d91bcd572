"""DELTA checkpoints in a bucket: one link of a chain each (grail-protocol §9.1, §9.5)."""

import json
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from windrow.networks.grail.checkpoint import (
    MAX_METADATA_BYTES,
    CheckpointMetadata,
    MalformedMetadata,
    kind_prefix,
    metadata_key,
)
from windrow.networks.grail.delta import MalformedDelta
from windrow.networks.grail.delta_codec import (
    VERSIONS,
    DeltaFormat,
    SparseDelta,
    decode_payload,
    payload_limit,
)
from windrow.networks.grail.delta_stream import inflate
from windrow.resources.checkpoints.files import (
    DELTA_FILES,
    DELTA_METADATA,
    METADATA,
    PAYLOAD,
    SIGNATURE,
    CheckpointError,
    MissingCheckpointFile,
    WrongHash,
    check_signature,
    file_sha256,
)
from windrow.resources.storage.object_store import ObjectStore

MAX_SIGNATURE_BYTES: Final = 4096


class BrokenChain(CheckpointError):
    """A checkpoint exists as a DELTA whose chain leads to no FULL checkpoint."""


@dataclass(frozen=True)
class Link:
    """One DELTA in the bucket.

    previous: the window whose weights it changes. signature: manifest.sig as text, None where
    there is none. sizes: bytes of its two files.
    """

    metadata: CheckpointMetadata
    previous: int
    signature: str | None
    sizes: Mapping[str, int]


def read_link(
    store: ObjectStore, window: int, sizes: Mapping[str, int], trainer_hotkey: str | None
) -> Link:
    """The DELTA of a window, its metadata checked and, with a hotkey, its signature (§9.3).

    sizes: of the window's objects by key. Raises MalformedMetadata, MissingCheckpointFile,
    WrongSignature, BrokenChain, ObjectStoreError.
    """
    folder = kind_prefix(window, "DELTA")
    # The metadata of a rebuilt checkpoint holds this one twice.
    text = store.get(metadata_key(window, "DELTA"), max_bytes=MAX_METADATA_BYTES // 3)
    metadata = CheckpointMetadata.parse(text)
    if metadata.window != window or metadata.kind != "DELTA":
        raise MalformedMetadata(
            f"{folder}/{METADATA} describes a {metadata.kind} checkpoint of window "
            f"{metadata.window}; the trainer must republish it"
        )
    signature = None
    if f"{folder}/{SIGNATURE}" in sizes:
        signed = store.get(f"{folder}/{SIGNATURE}", max_bytes=MAX_SIGNATURE_BYTES)
        signature = signed.decode("ascii", errors="replace").strip()
    if trainer_hotkey is not None:
        check_signature(metadata, (signature or "").encode(), trainer_hotkey)
    for name in DELTA_FILES:
        if name not in metadata.file_manifest or f"{folder}/{name}" not in sizes:
            raise MissingCheckpointFile(
                f"{folder}/{name} is not in the manifest or not in the bucket; skip the windows "
                f"that need checkpoint {window} until the trainer publishes a FULL one"
            )
    previous = metadata.prev_window
    if previous is None or previous >= window:
        raise BrokenChain(
            f"the DELTA of checkpoint {window} builds on window {previous}, which is none before "
            "it; skip its windows until the trainer publishes a FULL one"
        )
    return Link(
        metadata, previous, signature, {name: sizes[f"{folder}/{name}"] for name in DELTA_FILES}
    )


def fetch_link(store: ObjectStore, link: Link, directory: Path) -> None:
    """Put a delta's files into a folder, unless they are there.

    Raises WrongHash, ObjectStoreError, DiskFull.
    """
    window = link.metadata.window
    directory.mkdir(parents=True, exist_ok=True)
    for name, size in link.sizes.items():
        path = directory / name
        if not path.exists():
            key = f"{kind_prefix(window, 'DELTA')}/{name}"
            store.get_to_file(key, path, max_bytes=size, resume=True)
        if (digest := file_sha256(path)) != link.metadata.file_manifest[name]:
            raise WrongHash(
                f"{name} of checkpoint {window} has SHA-256 {digest}, the manifest says "
                f"{link.metadata.file_manifest[name]}; the file is damaged or was replaced, fetch "
                "it again or wait for a FULL checkpoint"
            )


@contextmanager
def open_delta(
    directory: Path, parameters: int, scratch: Path | None = None
) -> Iterator[SparseDelta]:
    """The changes in a fetched delta, inflated into a file that nobody else sees.

    parameters: how many the weights have, which bounds what the delta may inflate to. scratch:
    folder of that file, by default the system's for temporary files. Raises MalformedDelta.
    """
    format_ = _format(directory / DELTA_METADATA)
    with (
        (directory / PAYLOAD).open("rb") as source,
        tempfile.TemporaryFile(dir=scratch) as inflated,
    ):
        for piece in inflate(source, payload_limit(parameters)):
            inflated.write(piece)
        inflated.flush()
        # Nothing cannot be mapped.
        content = memoryview(b"")
        if inflated.tell():
            content = memoryview(mmap.mmap(inflated.fileno(), 0, access=mmap.ACCESS_READ))
        yield decode_payload(content, format_)


def _format(path: Path) -> DeltaFormat:
    """The codec that delta_metadata.json names; its other fields are for people."""
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise MalformedDelta(f"{path.name} is larger than {MAX_METADATA_BYTES} bytes")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MalformedDelta(f"{path.name} is not JSON: {error}") from error
    named = document.get("format") if isinstance(document, dict) else None
    for known in VERSIONS:
        if named == known:
            return known
    raise MalformedDelta(
        f"{path.name} names format {named!r:.40}, not one of {', '.join(VERSIONS)}; the trainer "
        "may use a newer one"
    )
