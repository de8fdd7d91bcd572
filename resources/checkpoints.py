"""Trainer checkpoints in a bucket: which one a window uses, and fetching it.

A checkpoint reaches the local cache whole and verified or not at all (grail-protocol §9).
"""

import contextlib
import errno
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

from windrow.networks.grail.checkpoint import (
    CHECKPOINTS_PREFIX,
    MAX_METADATA_BYTES,
    CheckpointMetadata,
    MalformedMetadata,
    checkpoint_prefix,
    kind_prefix,
    metadata_key,
    select_ready,
)
from windrow.resources.checkpoint_files import (
    METADATA,
    SIGNATURE,
    CheckpointError,
    MissingCheckpointFile,
    VerifiedCheckpoint,
    check_manifest,
    verify_checkpoint,
)
from windrow.resources.files import naming_disk_errors
from windrow.resources.object_store import ObjectStore

MAX_SIGNATURE_BYTES: Final = 4096
MAX_TEXT_FILE_BYTES: Final = 256 * 1024 * 1024
MAX_CHECKPOINT_BYTES: Final = 512 * 1024**3
TRANSFERS: Final = 8

_log = logging.getLogger(__name__)


class NoReadyCheckpoint(CheckpointError):
    """No checkpoint carries a READY marker that the window may use; the window is skipped."""


class DeltaOnlyCheckpoint(CheckpointError):
    """The checkpoint exists as a DELTA only, which this version does not rebuild."""


class ContradictoryMetadata(CheckpointError):
    """A checkpoint's FULL and DELTA metadata ask for different work."""


class CheckpointTooLarge(CheckpointError):
    """A checkpoint exceeds a size bound or the free space of the disk."""


@dataclass(frozen=True)
class CheckpointCache:
    """Verified FULL checkpoints on disk, one folder `checkpoint-<window>` each.

    trainer_hotkey: SS58 address that must have signed every checkpoint; None accepts any, as the
    network does. Several processes may share one root.
    """

    store: ObjectStore
    root: Path
    trainer_hotkey: str | None = None
    max_bytes: int = MAX_CHECKPOINT_BYTES

    def select(self, window: int) -> int:
        """The checkpoint window that a scoring window uses (§9.2). Raises NoReadyCheckpoint."""
        keys = (info.key for info in self.store.list(CHECKPOINTS_PREFIX))
        chosen = select_ready(keys, window)
        if chosen is None:
            raise NoReadyCheckpoint(
                f"no checkpoint was ready before window {window}; skip it and wait for the trainer"
            )
        return chosen

    def fetch(self, window: int) -> VerifiedCheckpoint:
        """The checkpoint of this window, from the cache when all of it verifies again.

        Raises CheckpointError, MalformedMetadata (skip the windows that use it), ObjectStoreError,
        DiskFull and PathRefused; nothing of a failed attempt stays in the cache.
        """
        place = self.root / f"checkpoint-{window}"
        with naming_disk_errors(place):
            return self._cached(place) or self._fetched(window, place)

    def _cached(self, place: Path) -> VerifiedCheckpoint | None:
        if not place.exists():
            return None
        try:
            return verify_checkpoint(place, self.trainer_hotkey)
        except (CheckpointError, MalformedMetadata) as error:
            _log.warning("%s is fetched again: %s", place, error)
        # Out of sight at once, whatever becomes of the deletion.
        doomed = self._partial(place)
        with contextlib.suppress(FileNotFoundError):
            place.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return None

    def _fetched(self, window: int, place: Path) -> VerifiedCheckpoint:
        metadata, files = self._inspect(window)
        partial = self._partial(place)
        partial.mkdir()
        try:
            self._download(metadata, files, partial)
            verified = verify_checkpoint(partial, self.trainer_hotkey)
            partial.rename(place)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            # Another process was faster; what it put there counts.
            return verify_checkpoint(place, self.trainer_hotkey)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return replace(verified, directory=place)

    def prune(self, keep: Collection[int]) -> None:
        """Delete cached checkpoints of other windows, and what dead processes left half done."""
        for path in self.root.glob("checkpoint-*"):
            window, *owner = path.name.removeprefix("checkpoint-").split(".")
            if owner and owner[-1] == "partial":
                dead = not (owner[0].isdigit() and psutil.pid_exists(int(owner[0])))
            else:
                dead = window.isdigit() and int(window) not in keep
            if dead:
                shutil.rmtree(path, ignore_errors=True)

    def _inspect(self, window: int) -> tuple[CheckpointMetadata, dict[str, int]]:
        """Metadata of a ready FULL checkpoint, checked, and the bytes of each file it lists."""
        sizes = {info.key: info.size for info in self.store.list(f"{checkpoint_prefix(window)}/")}
        if select_ready(sizes, before_window=2**63) is None:
            raise NoReadyCheckpoint(
                f"checkpoint {window} has no READY marker; its upload has not finished"
            )
        if metadata_key(window, "FULL") not in sizes:
            if metadata_key(window, "DELTA") in sizes:
                raise DeltaOnlyCheckpoint(
                    f"checkpoint {window} exists as DELTA only, and rebuilding from deltas is not "
                    "supported yet; skip its windows until the trainer publishes a FULL one"
                )
            raise MissingCheckpointFile(
                f"{metadata_key(window, 'FULL')} is not in the bucket; skip the windows of this "
                "checkpoint until the trainer publishes it again"
            )
        metadata = self._metadata(metadata_key(window, "FULL"))
        check_manifest(metadata)
        if metadata.window != window or metadata.kind != "FULL":
            raise MalformedMetadata(
                f"{metadata_key(window, 'FULL')} describes a {metadata.kind} checkpoint of window "
                f"{metadata.window}; the trainer must republish it"
            )
        if metadata_key(window, "DELTA") in sizes:
            _check_agreement(metadata, self._metadata(metadata_key(window, "DELTA")))
        folder = kind_prefix(window, "FULL")
        missing = [n for n in metadata.file_manifest if f"{folder}/{n}" not in sizes]
        if missing:
            raise MissingCheckpointFile(
                f"{folder}/{missing[0]} is in the manifest but not in the bucket "
                f"({len(missing)} files are missing); wait for the next checkpoint"
            )
        files = {name: sizes[f"{folder}/{name}"] for name in metadata.file_manifest}
        self._check_sizes(window, files)
        return metadata, files

    def _metadata(self, key: str) -> CheckpointMetadata:
        return CheckpointMetadata.parse(self.store.get(key, max_bytes=MAX_METADATA_BYTES))

    def _check_sizes(self, window: int, files: Mapping[str, int]) -> None:
        for name, size in files.items():
            if PurePosixPath(name).suffix != ".safetensors" and size > MAX_TEXT_FILE_BYTES:
                raise CheckpointTooLarge(
                    f"{name} of checkpoint {window} has {size} bytes; a file of its kind is never "
                    f"larger than {MAX_TEXT_FILE_BYTES}"
                )
        total = sum(files.values())
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if total > min(self.max_bytes, free):
            raise CheckpointTooLarge(
                f"checkpoint {window} has {total} bytes; {self.max_bytes} are allowed and {free} "
                f"are free at {self.root}; make room or raise the limit"
            )

    def _download(
        self, metadata: CheckpointMetadata, files: Mapping[str, int], directory: Path
    ) -> None:
        folder = kind_prefix(metadata.window, "FULL")
        (directory / METADATA).write_bytes(
            self.store.get(f"{folder}/{METADATA}", max_bytes=MAX_METADATA_BYTES)
        )
        if self.store.head(f"{folder}/{SIGNATURE}") is not None:
            signature = self.store.get(f"{folder}/{SIGNATURE}", max_bytes=MAX_SIGNATURE_BYTES)
            (directory / SIGNATURE).write_bytes(signature)
        with ThreadPoolExecutor(TRANSFERS) as pool:
            transfers = [
                pool.submit(
                    self.store.get_to_file, f"{folder}/{name}", directory / name, max_bytes=size
                )
                for name, size in files.items()
            ]
            try:
                for transfer in transfers:
                    transfer.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _partial(self, place: Path) -> Path:
        return place.with_name(f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def _check_agreement(full: CheckpointMetadata, delta: CheckpointMetadata) -> None:
    """Where both exist, miners read the configuration of the DELTA and the weights of the FULL
    (§9.3), so both must ask for the same work."""
    for field in ("env_id", "env_params", "thinking_mode", "policy"):
        if getattr(full, field) != getattr(delta, field):
            raise ContradictoryMetadata(
                f"FULL and DELTA metadata of checkpoint {full.window} disagree on {field}: "
                f"{getattr(full, field)!r:.200} and {getattr(delta, field)!r:.200}; skip its "
                "windows"
            )
