"""`windrow publish`: put a checkpoint into the trainer's own bucket, as miners look for it."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from windrow.networks.grail.checkpoint import CheckpointMetadata
from windrow.networks.grail.windows import window_start
from windrow.pipelines.commands.printing import cell
from windrow.pipelines.live import open_chain, open_store, open_wallet
from windrow.resources.checkpoints.cache import CheckpointCache, NoReadyCheckpoint
from windrow.resources.checkpoints.files import METADATA, VerifiedCheckpoint, verify_checkpoint
from windrow.resources.checkpoints.publisher import prune_published, publish_checkpoint
from windrow.resources.checkpoints.publishing import publish_full, write_full_metadata
from windrow.resources.configuration.settings import Settings
from windrow.resources.files import naming_disk_errors


def publish(
    out: Console,
    folder: Path,
    window: int | None = None,
    *,
    full: bool = False,
    prune: bool = False,
) -> None:
    """Publish a folder, signed by the wallet's hotkey, and say in which kinds.

    window: to publish it as; its metadata.json gets that window, and manifest and weights hash
    anew. full: FULL alone, else what its place in the chain asks for. prune: delete afterwards what
    publishers no longer keep. Raises CheckpointError, MalformedMetadata, ObjectStoreError.
    """
    settings = Settings.read()
    store, wallet = open_store(settings), open_wallet(settings)
    if window is not None:
        _describe(folder, window)
    current = verify_checkpoint(folder)
    ready = window_start(open_chain(settings).block())
    before = None if full else _before(settings, current)
    if before is None:
        publish_full(store, current, ready_window=ready, sign=wallet.sign)
        kinds: tuple[str, ...] = ("FULL",)
    else:
        kinds = publish_checkpoint(store, current, before, ready_window=ready, sign=wallet.sign)
    out.print(
        f"checkpoint {current.metadata.window} is published as {' and '.join(kinds)} in",
        cell(settings.bucket),
        f"ready in window {ready}, signed by {wallet.hotkey}",
    )
    for gone in prune_published(store, ready) if prune else ():
        out.print(f"deleted checkpoint {gone}")


def _describe(folder: Path, window: int) -> None:
    """Make the folder's metadata.json that of a window."""
    path = folder / METADATA
    with naming_disk_errors(path):
        document: dict[str, Any] = dict(CheckpointMetadata.parse(path.read_bytes()).document)
    write_full_metadata(
        folder,
        window=window,
        model_name=str(document.get("model_name", "")),
        env_id=str(document["env_id"]),
        env_params=dict(document.get("env_params") or {}),
        generation_params=dict(document["generation_params"]),
        thinking_mode=str(document["thinking_mode"]),
        created_at=time.time(),
        training_config=dict(document.get("training_config") or {}),
        git_commit=str(document.get("git_commit", "unknown")),
        parent_window=document.get("parent_window"),
    )


def _before(settings: Settings, current: VerifiedCheckpoint) -> VerifiedCheckpoint | None:
    """The newest checkpoint of the bucket, which a DELTA builds on; None for the first."""
    cache = CheckpointCache(
        open_store(settings), settings.cache / "published", open_wallet(settings).hotkey
    )
    try:
        newest = cache.select(2**62)
    except NoReadyCheckpoint:
        return None
    return cache.fetch(newest) if newest < current.metadata.window else None
