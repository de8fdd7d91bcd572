"""Fetching the files of a FULL checkpoint, several at once, each going on where it stopped."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from windrow.networks.grail.checkpoint import MAX_METADATA_BYTES, CheckpointMetadata, kind_prefix
from windrow.resources.checkpoints.delta_links import MAX_SIGNATURE_BYTES
from windrow.resources.checkpoints.files import (
    METADATA,
    SIGNATURE,
    VerifiedCheckpoint,
    verify_checkpoint,
)
from windrow.resources.checkpoints.partials import drop_parts
from windrow.resources.storage.objects import ObjectStore

TRANSFERS: Final = 8


def download_full(
    store: ObjectStore,
    metadata: CheckpointMetadata,
    files: Mapping[str, int],
    trainer_hotkey: str | None,
    directory: Path,
) -> VerifiedCheckpoint:
    """Fill a folder, which may hold some of the files or parts of them, and verify all of it.

    files: bytes of each by relative name. Raises as verify_checkpoint, and ObjectStoreError,
    DiskFull, PathRefused.
    """
    folder = kind_prefix(metadata.window, "FULL")
    (directory / METADATA).write_bytes(
        store.get(f"{folder}/{METADATA}", max_bytes=MAX_METADATA_BYTES)
    )
    if store.head(f"{folder}/{SIGNATURE}") is not None:
        signature = store.get(f"{folder}/{SIGNATURE}", max_bytes=MAX_SIGNATURE_BYTES)
        (directory / SIGNATURE).write_bytes(signature)
    with ThreadPoolExecutor(TRANSFERS) as pool:
        transfers = [
            pool.submit(
                store.get_to_file,
                f"{folder}/{name}",
                directory / name,
                max_bytes=size,
                resume=True,
            )
            for name, size in files.items()
            if not (directory / name).exists()
        ]
        try:
            for transfer in transfers:
                transfer.result()
        finally:
            pool.shutdown(cancel_futures=True)
    drop_parts(directory)
    return verify_checkpoint(directory, trainer_hotkey)
