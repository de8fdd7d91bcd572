"""What a trainer's bucket gets and keeps, FULL and DELTA (grail-validation §19.7, §19.8).

The first checkpoint is FULL. Each later one is a DELTA of the one before it, and FULL too where it
is an anchor or its chain has grown long, or FULL alone where a DELTA cannot carry what changed.
"""

import logging
from collections.abc import Collection
from typing import Final

from windrow.engine.ports import Sign
from windrow.networks.grail.checkpoint import (
    CHECKPOINTS_PREFIX,
    MAX_METADATA_BYTES,
    CheckpointMetadata,
    Kind,
    anchor_window,
    checkpoint_prefix,
    kind_prefix,
    metadata_key,
    parse_ready_key,
)
from windrow.networks.grail.delta import UnencodableDelta
from windrow.networks.grail.retention import Inventory, checkpoint_window, published_windows
from windrow.resources.checkpoints.delta_publishing import publish_delta
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.checkpoints.publishing import publish_full
from windrow.resources.storage.objects import ObjectStore

MAX_CHAIN: Final = 10

_log = logging.getLogger(__name__)


def publish_checkpoint(
    store: ObjectStore,
    current: VerifiedCheckpoint,
    previous: VerifiedCheckpoint | None,
    *,
    ready_window: int,
    sign: Sign,
) -> tuple[Kind, ...]:
    """Publish a checkpoint in the kinds that its place asks for; the READY marker is written last.

    previous: the checkpoint published before it, None for the first. ready_window: the window
    during which the upload finishes. sign: by the trainer's hotkey. Returns the kinds published.

    Raises CheckpointPublished and ObjectStoreError; a failed attempt may be repeated.
    """
    window = current.metadata.window
    chain = None if previous is None else _chain(store, previous.metadata.window)
    if previous is None or chain is None:
        publish_full(store, current, ready_window=ready_window, sign=sign)
        return ("FULL",)
    anchor, links = chain
    whole = window == anchor_window(window) or links >= MAX_CHAIN
    try:
        publish_delta(
            store,
            previous,
            current,
            anchor_window=anchor,
            ready_window=None if whole else ready_window,
            sign=sign,
        )
    except UnencodableDelta as error:
        _log.warning("checkpoint %d is published FULL only: %s", window, error)
        # An attempt that failed earlier may have left a DELTA of other weights.
        _delete(store, f"{kind_prefix(window, 'DELTA')}/")
        publish_full(store, current, ready_window=ready_window, sign=sign)
        return ("FULL",)
    if not whole:
        return ("DELTA",)
    publish_full(store, current, ready_window=ready_window, sign=sign)
    return ("FULL", "DELTA")


def prune_published(
    store: ObjectStore, current: int, milestones: Collection[int] = ()
) -> tuple[int, ...]:
    """Delete the checkpoints a publisher no longer keeps; returns their windows (§19.7).

    current: the newest window. milestones: windows to keep besides. A checkpoint's READY markers go
    first, so that nobody takes up what is half deleted. Raises MalformedMetadata where a DELTA does
    not say what it builds on, and ObjectStoreError; run again then.
    """
    keys = [info.key for info in store.list(CHECKPOINTS_PREFIX)]
    inventory = Inventory.of(keys)
    previous: dict[int, int] = {}
    anchors: dict[int, int] = {}
    present = set(keys)
    for window in inventory.deltas:
        if metadata_key(window, "DELTA") not in present:
            continue
        metadata = _metadata(store, window)
        if metadata.prev_window is not None:
            previous[window] = metadata.prev_window
        if metadata.anchor_window is not None:
            anchors[window] = metadata.anchor_window
    kept = {*published_windows(current, inventory, previous, anchors), *milestones}
    doomed = tuple(
        window for window in inventory.windows if window not in kept and window <= current
    )
    for window in doomed:
        own = [key for key in keys if checkpoint_window(key) == window]
        for key in sorted(own, key=lambda key: parse_ready_key(key) is None):
            store.delete(key)
    return doomed


def _chain(store: ObjectStore, window: int) -> tuple[int, int] | None:
    """The FULL checkpoint that the chain of a published one ends at, and its number of deltas.

    None where the chain does not reach one.
    """
    for links in range(MAX_CHAIN + 1):
        keys = {info.key for info in store.list(f"{checkpoint_prefix(window)}/")}
        ready = any(parse_ready_key(key) for key in keys)
        if ready and metadata_key(window, "FULL") in keys:
            return window, links
        if metadata_key(window, "DELTA") not in keys:
            return None
        before = _metadata(store, window).prev_window
        if before is None or before >= window:
            return None
        window = before
    return None


def _metadata(store: ObjectStore, window: int) -> CheckpointMetadata:
    key = metadata_key(window, "DELTA")
    return CheckpointMetadata.parse(store.get(key, max_bytes=MAX_METADATA_BYTES))


def _delete(store: ObjectStore, prefix: str) -> None:
    for info in store.list(prefix):
        store.delete(info.key)
