"""Checkpoints on an S3 server: found, fetched, taken up again after every kind of failure."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bittensor_core import Keypair

from tests.conftest import S3Place
from tests.support.flaky_proxy import Fault
from tests.support.radosgw import KEY_ID, SECRET
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.networks.grail.checkpoint import kind_prefix, metadata_key, ready_key
from windrow.resources.checkpoints.cache import CheckpointCache, NoReadyCheckpoint
from windrow.resources.checkpoints.files import MissingCheckpointFile, WrongHash, verify_checkpoint
from windrow.resources.checkpoints.publishing import publish_full
from windrow.resources.storage.object_store import BucketUnavailable, ObjectMissing

TRAINER = Keypair.create_from_uri("//Trainer")
WEIGHTS = "FULL/model.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), window=300)


@pytest.fixture
def cache(s3: S3Place, checkpoint: Path, tmp_path: Path) -> CheckpointCache:
    """A cache before a bucket with one checkpoint, published through the proxy."""
    publish_full(s3.open(), verify_checkpoint(checkpoint), ready_window=330, sign=TRAINER.sign)
    s3.proxy.seen.clear()
    return CheckpointCache(s3.open(read_seconds=0.3), tmp_path / "cache", TRAINER.ss58_address)


def names(cache: CheckpointCache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir())


def test_what_is_ready_is_found_and_fetched_once(s3: S3Place, cache: CheckpointCache) -> None:
    with pytest.raises(NoReadyCheckpoint):
        cache.select(330)
    s3.direct().put("grail/checkpoints/checkpoint-330/FULL/metadata.json", b"{}")
    assert cache.select(360) == 300
    fetched = cache.fetch(300)
    assert fetched.notes == ()
    s3.proxy.seen.clear()
    assert cache.fetch(300) == fetched
    assert s3.proxy.seen == []


def test_a_fetch_goes_on_where_the_connection_broke(s3: S3Place, cache: CheckpointCache) -> None:
    size = s3.direct().head(f"{kind_prefix(300, 'FULL')}/model.safetensors").size
    s3.proxy.faults = [Fault("cut", "GET", WEIGHTS), Fault("busy", "GET", WEIGHTS, times=99)]
    with pytest.raises(BucketUnavailable):
        cache.fetch(300)
    (kept,) = cache.root.iterdir()
    (part,) = kept.rglob(".*.part")
    assert 0 < part.stat().st_size < size
    s3.proxy.faults = []
    s3.proxy.seen.clear()
    assert cache.fetch(300).notes == ()
    assert names(cache) == ["checkpoint-300"]
    assert s3.proxy.count("GET", "tokenizer.json") == 0
    assert s3.proxy.count("GET", WEIGHTS) == 1


def test_a_process_killed_while_it_fetches_is_taken_up(s3: S3Place, cache: CheckpointCache) -> None:
    script = f"""
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import S3Bucket
from windrow.resources.secret import Secret
from pathlib import Path
access = S3Access({KEY_ID!r}, Secret({SECRET!r}), None, "us-east-1", {s3.proxy.url!r})
CheckpointCache(S3Bucket({s3.bucket!r}, access), Path({str(cache.root)!r})).fetch(300)
"""
    s3.proxy.faults = [Fault("silent", "GET", WEIGHTS)]
    child = subprocess.Popen([sys.executable, "-c", script])
    while s3.proxy.count("GET", WEIGHTS) == 0 or not list(cache.root.rglob("tokenizer.json")):
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert names(cache) != ["checkpoint-300"]
    s3.proxy.seen.clear()
    assert cache.fetch(300).notes == ()
    assert names(cache) == ["checkpoint-300"]
    assert s3.proxy.count("GET", "tokenizer.json") == 0


def test_a_flipped_byte_is_named_and_nothing_of_it_is_kept(
    s3: S3Place, cache: CheckpointCache
) -> None:
    s3.proxy.faults = [Fault("flipped", "GET", WEIGHTS)]
    with pytest.raises(WrongHash, match=r"model\.safetensors of checkpoint 300"):
        cache.fetch(300)
    assert names(cache) == []
    assert cache.fetch(300).notes == ()


def test_a_half_uploaded_checkpoint_is_not_used(s3: S3Place, cache: CheckpointCache) -> None:
    bucket = s3.direct()
    bucket.delete(ready_key(300, 330))
    with pytest.raises(NoReadyCheckpoint):
        cache.select(390)
    with pytest.raises(NoReadyCheckpoint, match="upload has not finished"):
        cache.fetch(300)
    bucket.put(ready_key(300, 330), b"")
    bucket.delete(f"{kind_prefix(300, 'FULL')}/tokenizer.json")
    with pytest.raises(MissingCheckpointFile, match="tokenizer"):
        cache.fetch(300)


def test_a_checkpoint_that_vanishes_is_named(s3: S3Place, cache: CheckpointCache) -> None:
    assert cache.select(360) == 300
    for info in s3.direct().list("grail/checkpoints/"):
        s3.direct().delete(info.key)
    with pytest.raises(NoReadyCheckpoint):
        cache.fetch(300)


def test_a_file_that_vanishes_under_a_fetch_is_named(s3: S3Place, cache: CheckpointCache) -> None:
    key = f"{kind_prefix(300, 'FULL')}/model.safetensors"
    sizes = cache._sizes(300)
    s3.direct().delete(key)
    _, fill = cache._full(300, sizes)
    with pytest.raises(ObjectMissing, match=r"model\.safetensors"):
        fill(cache.root)


def test_publishing_through_a_failing_server_is_whole(
    s3: S3Place, checkpoint: Path, tmp_path: Path
) -> None:
    s3.proxy.faults = [
        Fault("stored_then_reset", "PUT", "metadata.json"),
        Fault("busy", "PUT", "model.safetensors"),
        Fault("stored_then_busy", "PUT", "READY-330"),
    ]
    publish_full(s3.open(), verify_checkpoint(checkpoint), ready_window=330, sign=TRAINER.sign)
    assert s3.proxy.count("PUT", "READY-330") == 1
    assert s3.proxy.count("PUT", metadata_key(300, "FULL")) == 1
    cache = CheckpointCache(s3.direct(), tmp_path / "cache", TRAINER.ss58_address)
    assert cache.fetch(300).notes == ()
