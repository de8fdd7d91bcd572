"""Trainer checkpoints in a bucket: which one a window uses, and fetching it.

A checkpoint reaches the local cache whole and verified or not at all (grail-protocol §9).
"""

import contextlib
import errno
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

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
from windrow.resources.checkpoints.delta_links import BrokenChain, Link, read_link
from windrow.resources.checkpoints.download import download_full
from windrow.resources.checkpoints.files import (
    CheckpointError,
    MissingCheckpointFile,
    UnsafeCheckpoint,
    VerifiedCheckpoint,
    check_manifest,
    model_files,
)
from windrow.resources.checkpoints.partials import abandoned, filling, partial_path, take_up
from windrow.resources.checkpoints.rebuilding import (
    REBUILT_FROM,
    rebuild,
    verify_cached,
    wanted_files,
)
from windrow.resources.files import naming_disk_errors
from windrow.resources.storage.object_store import ObjectStore

MAX_TEXT_FILE_BYTES: Final = 256 * 1024 * 1024
MAX_CHECKPOINT_BYTES: Final = 512 * 1024**3
MAX_LINKS: Final = 100

_log = logging.getLogger(__name__)
_Plan = tuple[Mapping[str, str], Callable[[Path], VerifiedCheckpoint]]


class NoReadyCheckpoint(CheckpointError):
    """No checkpoint carries a READY marker that the window may use; the window is skipped."""


class ContradictoryMetadata(CheckpointError):
    """A checkpoint's FULL and DELTA metadata ask for different work."""


class CheckpointTooLarge(CheckpointError):
    """A checkpoint exceeds a size bound or the free space of the disk."""


@dataclass(frozen=True)
class CheckpointCache:
    """Verified FULL checkpoints on disk, one folder `checkpoint-<window>` each.

    One that exists as a DELTA only is rebuilt from the nearest checkpoint before it.

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

        Raises CheckpointError, MalformedMetadata, MalformedDelta, DeltaMismatch (skip the windows
        that use it), ObjectStoreError, DiskFull and PathRefused. Nothing unverified is ever seen
        in the cache; what was fetched before a failure is not fetched again.
        """
        place = self._place(window)
        with naming_disk_errors(place):
            return self._cached(place) or self._fetched(window, place)

    def prune(self, keep: Collection[int]) -> None:
        """Delete cached checkpoints of other windows, and what dead processes left half done."""
        for path in self.root.glob("checkpoint-*"):
            window = path.name.removeprefix("checkpoint-")
            if path.suffix == ".partial":
                dead = abandoned(path)
            else:
                dead = window.isdigit() and int(window) not in keep
            if dead:
                shutil.rmtree(path, ignore_errors=True)

    def _place(self, window: int) -> Path:
        return self.root / f"checkpoint-{window}"

    def _cached(self, place: Path) -> VerifiedCheckpoint | None:
        if not place.exists():
            return None
        try:
            return verify_cached(place, self.trainer_hotkey)
        except (CheckpointError, MalformedMetadata) as error:
            _log.warning("%s is fetched again: %s", place, error)
        # Out of sight at once, whatever becomes of the deletion.
        doomed = partial_path(place)
        with contextlib.suppress(FileNotFoundError):
            place.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return None

    def _fetched(self, window: int, place: Path) -> VerifiedCheckpoint:
        sizes = self._ready(window)
        full = metadata_key(window, "FULL") in sizes
        wanted, fill = self._full(window, sizes) if full else self._chain(window, sizes)
        try:
            with filling(place) as directory:
                take_up(place, wanted, directory)
                verified = fill(directory)
                directory.rename(place)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            # Another process was faster; what it put there counts.
            return verify_cached(place, self.trainer_hotkey)
        return replace(verified, directory=place)

    def _full(self, window: int, sizes: Mapping[str, int]) -> _Plan:
        metadata, files = self._inspect(window, sizes)
        return metadata.file_manifest, partial(
            download_full, self.store, metadata, files, self.trainer_hotkey
        )

    def _chain(self, window: int, sizes: Mapping[str, int]) -> _Plan:
        """How to rebuild a checkpoint that exists as a DELTA only (§9.4)."""
        links = [read_link(self.store, window, sizes, self.trainer_hotkey)]
        while (base := self._base(links[-1])) is None:
            if len(links) == MAX_LINKS:
                raise BrokenChain(f"checkpoint {window} is over {MAX_LINKS} deltas from a FULL one")
            previous = links[-1].previous
            sizes = self._sizes(previous)
            links.append(read_link(self.store, previous, sizes, self.trainer_hotkey))
        links.reverse()
        copied = sum((base.directory / n).stat().st_size for n in model_files(base.directory))
        self._check_space(window, copied + sum(sum(link.sizes.values()) for link in links))
        return wanted_files(links), lambda directory: rebuild(
            base, links, self.store, directory, self.trainer_hotkey
        )

    def _base(self, link: Link) -> VerifiedCheckpoint | None:
        """The checkpoint a delta builds on, None where that is itself only a DELTA."""
        window = link.previous
        if (cached := self._cached(self._place(window))) is not None:
            return cached
        sizes = self._sizes(window)
        full, delta = (metadata_key(window, kind) in sizes for kind in ("FULL", "DELTA"))
        if not full and not delta:
            raise BrokenChain(
                f"the DELTA of checkpoint {link.metadata.window} builds on checkpoint {window}, "
                "which is not in the bucket; skip the windows that need it until the trainer "
                "publishes a FULL one"
            )
        # A link needs no READY marker, but a FULL one without it may be half uploaded.
        if full and (select_ready(sizes, before_window=2**63) is not None or not delta):
            return self.fetch(window)
        return None

    def _sizes(self, window: int) -> dict[str, int]:
        return {info.key: info.size for info in self.store.list(f"{checkpoint_prefix(window)}/")}

    def _ready(self, window: int) -> dict[str, int]:
        """Bytes of each object of a ready checkpoint, by key."""
        sizes = self._sizes(window)
        if select_ready(sizes, before_window=2**63) is None:
            raise NoReadyCheckpoint(
                f"checkpoint {window} has no READY marker; its upload has not finished"
            )
        if not any(metadata_key(window, kind) in sizes for kind in ("FULL", "DELTA")):
            raise MissingCheckpointFile(
                f"{metadata_key(window, 'FULL')} is not in the bucket; skip the windows of this "
                "checkpoint until the trainer publishes it again"
            )
        return sizes

    def _inspect(
        self, window: int, sizes: Mapping[str, int]
    ) -> tuple[CheckpointMetadata, dict[str, int]]:
        """Metadata of a FULL checkpoint, checked, and the bytes of each file it lists."""
        metadata = self._metadata(metadata_key(window, "FULL"))
        check_manifest(metadata)
        if metadata.window != window or metadata.kind != "FULL":
            raise MalformedMetadata(
                f"{metadata_key(window, 'FULL')} describes a {metadata.kind} checkpoint of window "
                f"{metadata.window}; the trainer must republish it"
            )
        if REBUILT_FROM in metadata.document:
            raise UnsafeCheckpoint(
                f"{metadata_key(window, 'FULL')} claims to be rebuilt on this machine"
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
        self._check_space(window, sum(files.values()))

    def _check_space(self, window: int, total: int) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if total > min(self.max_bytes, free):
            raise CheckpointTooLarge(
                f"checkpoint {window} has {total} bytes; {self.max_bytes} are allowed and {free} "
                f"are free at {self.root}; make room or raise the limit"
            )


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
