"""The embedded network's trainer: one small checkpoint, published once, ready for every window."""

import contextlib
from pathlib import Path

from windrow.networks.grail.checkpoint import ready_key
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.publishing import CheckpointPublished, publish_full
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import ObjectStore
from windrow.resources.wallet import DevelopmentWallet, Wallet

CHECKPOINT = Path(__file__).parent / "checkpoint"
CHECKPOINT_WINDOW = 0


def trainer() -> Wallet:
    """The development trainer, whose signature every embedded checkpoint carries."""
    return DevelopmentWallet(Secret("//Windrow//trainer"))


def ensure_published(bucket: ObjectStore) -> None:
    """Publish the checkpoint that ships with Windrow unless the bucket has it."""
    if bucket.head(ready_key(CHECKPOINT_WINDOW, CHECKPOINT_WINDOW)) is None:
        # Another process may publish the same files at the same time; they are equal.
        with contextlib.suppress(CheckpointPublished):
            publish_full(
                bucket,
                verify_checkpoint(CHECKPOINT),
                ready_window=CHECKPOINT_WINDOW,
                sign=trainer().sign,
            )
