"""The publisher: which kinds a checkpoint is published in, and which checkpoints stay."""

from pathlib import Path

import pytest
from torch import Tensor

from tests.resources.test_delta_checkpoints import TRAINER, next_checkpoint, step
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.networks.grail.checkpoint import ready_key
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint, weights_hash
from windrow.resources.checkpoints.publisher import prune_published, publish_checkpoint
from windrow.resources.checkpoints.publishing import CheckpointPublished
from windrow.resources.storage.object_store import Bucket, open_bucket


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(tmp_path / "bucket")


@pytest.fixture
def first(tmp_path: Path) -> VerifiedCheckpoint:
    return verify_checkpoint(make_tiny_checkpoint(tmp_path / "first", window=570))


def publish(
    bucket: Bucket, current: VerifiedCheckpoint, previous: VerifiedCheckpoint | None
) -> tuple[str, ...]:
    return publish_checkpoint(
        bucket, current, previous, ready_window=current.metadata.window, sign=TRAINER.sign
    )


def after(previous: VerifiedCheckpoint, window: int) -> VerifiedCheckpoint:
    return verify_checkpoint(next_checkpoint(previous, window, step(window % 300 + 30)))


def test_each_place_in_the_chain_has_its_kinds(
    bucket: Bucket, first: VerifiedCheckpoint, tmp_path: Path
) -> None:
    assert publish(bucket, first, None) == ("FULL",)
    anchor = after(first, 600)
    assert publish(bucket, anchor, first) == ("FULL", "DELTA")
    third = after(anchor, 630)
    assert publish(bucket, third, anchor) == ("DELTA",)
    fourth = after(third, 660)
    assert publish(bucket, fourth, third) == ("DELTA",)
    cache = CheckpointCache(bucket, tmp_path / "cache", TRAINER.ss58_address)
    assert cache.select(690) == 660
    fetched = cache.fetch(660)
    assert fetched.weights_hash == weights_hash(fourth.directory)
    assert fetched.metadata.document["original_anchor_window"] == 600
    with pytest.raises(CheckpointPublished):
        publish(bucket, fourth, third)


def test_a_long_chain_ends_in_a_full_one(bucket: Bucket, tmp_path: Path) -> None:
    previous = verify_checkpoint(make_tiny_checkpoint(tmp_path / "first", window=300))
    publish(bucket, previous, None)
    kinds = []
    for window in range(330, 330 + 12 * 2, 2):
        current = verify_checkpoint(next_checkpoint(previous, window, step(30)))
        kinds.append(publish(bucket, current, previous))
        previous = current
    assert kinds == [("DELTA",)] * 10 + [("FULL", "DELTA"), ("DELTA",)]


def test_what_a_delta_cannot_carry_is_published_whole(
    bucket: Bucket, first: VerifiedCheckpoint, tmp_path: Path
) -> None:
    publish(bucket, first, None)

    def other_template(_tensors: dict[str, Tensor]) -> None:
        template = first.directory.with_name("trained-660") / "chat_template.jinja"
        template.write_text(template.read_text() + "{# new #}")

    third = verify_checkpoint(next_checkpoint(first, 660, other_template))
    assert publish(bucket, third, first) == ("FULL",)
    cache = CheckpointCache(bucket, tmp_path / "cache", TRAINER.ss58_address)
    assert cache.fetch(660).weights_hash == third.weights_hash


def test_a_checkpoint_whose_base_is_gone_is_published_whole(
    bucket: Bucket, first: VerifiedCheckpoint
) -> None:
    assert publish(bucket, after(first, 600), first) == ("FULL",)


def test_old_checkpoints_go_and_chains_stay_whole(
    bucket: Bucket, first: VerifiedCheckpoint, tmp_path: Path
) -> None:
    publish(bucket, first, None)
    for window in (60, 600, 900, 1200, 1500, 1800):
        bucket.put(f"grail/checkpoints/checkpoint-{window}/FULL/metadata.json", b"{}")
        bucket.put(ready_key(window, window), b"")
    linked = after(first, 630)
    publish(bucket, linked, first)
    assert prune_published(bucket, 3000, milestones=[600]) == (900,)
    assert not bucket.list("grail/checkpoints/checkpoint-900/")
    cache = CheckpointCache(bucket, tmp_path / "cache", TRAINER.ss58_address)
    assert cache.fetch(630).weights_hash == linked.weights_hash
    assert prune_published(bucket, 3000, milestones=[600]) == ()
    assert prune_published(open_bucket(tmp_path / "empty"), 3000) == ()
