import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from bittensor_core import Keypair

from tests.support.disks import run_on_failing_disks
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.networks.grail.checkpoint import (
    MalformedMetadata,
    kind_prefix,
    metadata_key,
    ready_key,
)
from windrow.resources.checkpoints.cache import (
    CheckpointCache,
    CheckpointTooLarge,
    ContradictoryMetadata,
    NoReadyCheckpoint,
)
from windrow.resources.checkpoints.files import (
    DamagedWeights,
    MissingCheckpointFile,
    UnexpectedCheckpointFile,
    UnsafeCheckpoint,
    WrongHash,
    WrongSignature,
    verify_checkpoint,
)
from windrow.resources.checkpoints.partials import partial_path
from windrow.resources.checkpoints.publishing import CheckpointPublished, publish_full
from windrow.resources.storage.object_store import (
    Bucket,
    BucketUnavailable,
    ObjectInfo,
    open_bucket,
)

WINDOW = 300
FULL = kind_prefix(WINDOW, "FULL")
TRAINER = Keypair.create_from_uri("//Trainer")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("trainer"), window=WINDOW)


@pytest.fixture
def bucket(checkpoint: Path, tmp_path: Path) -> Bucket:
    store = open_bucket(tmp_path / "bucket")
    publish_full(store, verify_checkpoint(checkpoint), ready_window=330, sign=TRAINER.sign)
    return store


@pytest.fixture
def cache(bucket: Bucket, tmp_path: Path) -> CheckpointCache:
    return CheckpointCache(bucket, tmp_path / "cache")


def edit_metadata(store: Bucket, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(store.get(f"{FULL}/metadata.json"))
    change(document)
    store.put(f"{FULL}/metadata.json", json.dumps(document).encode())


def visible(cache: CheckpointCache) -> list[str]:
    return [path.name for path in cache.root.iterdir()] if cache.root.exists() else []


def test_published_checkpoint_is_selected_fetched_and_used_again(
    cache: CheckpointCache, checkpoint: Path
) -> None:
    assert cache.select(360) == WINDOW
    fetched = cache.fetch(WINDOW)

    assert fetched.directory == cache.root / "checkpoint-300"
    assert fetched.metadata == verify_checkpoint(checkpoint).metadata
    assert (fetched.directory / "model.safetensors").read_bytes() == (
        checkpoint / "model.safetensors"
    ).read_bytes()
    assert visible(cache) == ["checkpoint-300"]

    offline = CheckpointCache(open_bucket(cache.root.parent / "empty"), cache.root)
    assert offline.fetch(WINDOW) == fetched


def test_window_uses_only_checkpoints_ready_before_it(cache: CheckpointCache) -> None:
    with pytest.raises(NoReadyCheckpoint, match="before window 330"):
        cache.select(330)


def test_checkpoint_without_ready_marker_is_not_fetched(
    cache: CheckpointCache, bucket: Bucket
) -> None:
    bucket.delete(ready_key(WINDOW, 330))
    with pytest.raises(NoReadyCheckpoint, match="checkpoint 300 has no READY marker"):
        cache.fetch(WINDOW)


def test_broken_cache_is_fetched_again(cache: CheckpointCache) -> None:
    directory = cache.fetch(WINDOW).directory
    (directory / "config.json").write_text("{}")
    (directory / "left-over.txt").write_text("")

    assert cache.fetch(WINDOW).directory == directory
    assert json.loads((directory / "config.json").read_text())["model_type"] == "qwen2"
    assert visible(cache) == ["checkpoint-300"]


def test_processes_that_fetch_at_once_agree(cache: CheckpointCache) -> None:
    results: list[object] = []
    threads = [Thread(target=lambda: results.append(cache.fetch(WINDOW))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert visible(cache) == ["checkpoint-300"]


def test_missing_shard_is_named(cache: CheckpointCache, bucket: Bucket) -> None:
    bucket.delete(f"{FULL}/model.safetensors")
    with pytest.raises(MissingCheckpointFile, match=r"FULL/model\.safetensors is in the manifest"):
        cache.fetch(WINDOW)
    assert visible(cache) == []


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_altered_file_is_named_with_both_hashes(
    cache: CheckpointCache, bucket: Bucket, name: str
) -> None:
    content = bytearray(bucket.get(f"{FULL}/{name}"))
    content[-1] ^= 1
    bucket.put(f"{FULL}/{name}", bytes(content))
    with pytest.raises(WrongHash, match=rf"{name} of checkpoint 300 has SHA-256 [0-9a-f]{{64}}"):
        cache.fetch(WINDOW)
    assert visible(cache) == []


def test_weights_hash_is_checked_for_full_checkpoints(
    cache: CheckpointCache, bucket: Bucket
) -> None:
    edit_metadata(bucket, lambda document: document.update(weights_hash="0" * 32))
    with pytest.raises(WrongHash, match=r"the trainer published 0{32}"):
        cache.fetch(WINDOW)
    assert visible(cache) == []


def test_absent_weights_hash_is_accepted_and_noted(cache: CheckpointCache, bucket: Bucket) -> None:
    edit_metadata(bucket, lambda document: document.pop("weights_hash"))
    assert "weights hash not checked" in " ".join(cache.fetch(WINDOW).notes)


def test_unlisted_file_is_named(cache: CheckpointCache, bucket: Bucket) -> None:
    edit_metadata(bucket, lambda document: document["file_manifest"].pop("tokenizer.json"))
    directory = cache.fetch(WINDOW).directory
    assert not (directory / "tokenizer.json").exists()

    (directory / "more").mkdir()
    (directory / "more" / "notes.txt").write_text("")
    with pytest.raises(UnexpectedCheckpointFile, match=r"more/notes\.txt lies in the folder"):
        verify_checkpoint(directory)


def test_truncated_weights_are_named_even_if_the_manifest_agrees(
    cache: CheckpointCache, bucket: Bucket
) -> None:
    truncated = bucket.get(f"{FULL}/model.safetensors")[:-1000]
    digest = hashlib.sha256(truncated).hexdigest()
    bucket.put(f"{FULL}/model.safetensors", truncated)
    edit_metadata(
        bucket, lambda document: document["file_manifest"].update({"model.safetensors": digest})
    )
    with pytest.raises(DamagedWeights, match=r"model\.safetensors is no whole safetensors file"):
        cache.fetch(WINDOW)
    assert visible(cache) == []


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/etc/evil.json",
        "..\\evil.json",
        "a/../b.json",
        "evil\n.json",
        "",
        "..",
        "e\0",
    ],
)
def test_manifest_with_a_path_is_refused(cache: CheckpointCache, bucket: Bucket, name: str) -> None:
    edit_metadata(bucket, lambda document: document["file_manifest"].update({name: "0" * 64}))
    with pytest.raises(MalformedMetadata, match="is not a plain"):
        cache.fetch(WINDOW)
    assert visible(cache) == []


@pytest.mark.parametrize(
    "name",
    ["modeling.py", "pytorch_model.bin", "weights.pkl", "metadata.json", "FULL", "CONFIG.json"],
)
def test_manifest_with_a_needless_file_is_refused(
    cache: CheckpointCache, bucket: Bucket, name: str
) -> None:
    edit_metadata(bucket, lambda document: document["file_manifest"].update({name: "0" * 64}))
    with pytest.raises(UnsafeCheckpoint, match=name):
        cache.fetch(WINDOW)
    assert visible(cache) == []


def test_empty_manifest_is_refused(cache: CheckpointCache, bucket: Bucket) -> None:
    edit_metadata(bucket, lambda document: document.update(file_manifest={}))
    with pytest.raises(UnsafeCheckpoint, match="lists no files"):
        cache.fetch(WINDOW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda document: document.update(env_id=""), "env_id"),
        (lambda document: document.update(thinking_mode="Native"), "thinking_mode"),
        (lambda document: document["generation_params"].pop("top_k"), "top_k"),
        (lambda document: document.update(window=330), "describes a FULL checkpoint of window 330"),
        (lambda document: document.update(checkpoint_type="DELTA"), "describes a DELTA"),
    ],
)
def test_malformed_metadata_carries_the_reason(
    cache: CheckpointCache, bucket: Bucket, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    edit_metadata(bucket, change)
    with pytest.raises(MalformedMetadata, match=reason):
        cache.fetch(WINDOW)
    assert visible(cache) == []


def test_signature_is_verified_when_the_trainer_is_known(
    cache: CheckpointCache, bucket: Bucket, tmp_path: Path
) -> None:
    strict = CheckpointCache(bucket, tmp_path / "strict", TRAINER.ss58_address)
    assert strict.fetch(WINDOW).notes == ()

    edit_metadata(bucket, lambda document: document["generation_params"].update(temperature=0.8))
    assert cache.fetch(WINDOW).metadata.policy.temperature == 0.8
    shutil.rmtree(strict.root)
    with pytest.raises(WrongSignature, match="no signature of its metadata by"):
        strict.fetch(WINDOW)

    bucket.delete(f"{FULL}/manifest.sig")
    with pytest.raises(MissingCheckpointFile, match=r"manifest\.sig"):
        strict.fetch(WINDOW)
    assert visible(strict) == []


def test_delta_metadata_must_ask_for_the_same_work(cache: CheckpointCache, bucket: Bucket) -> None:
    document = json.loads(bucket.get(f"{FULL}/metadata.json"))
    document["thinking_mode"] = "native"
    bucket.put(metadata_key(WINDOW, "DELTA"), json.dumps(document).encode())
    with pytest.raises(ContradictoryMetadata, match="disagree on thinking_mode"):
        cache.fetch(WINDOW)


def test_sizes_are_bounded_before_anything_is_fetched(bucket: Bucket, tmp_path: Path) -> None:
    cache = CheckpointCache(bucket, tmp_path / "cache", max_bytes=10_000)
    with pytest.raises(CheckpointTooLarge, match="10000 are allowed"):
        cache.fetch(WINDOW)
    assert visible(cache) == []


class Failing(Bucket):
    """A real bucket whose connection breaks at the weights."""

    def get_to_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        if key.endswith(".safetensors"):
            path.write_bytes(b"the first half")
            raise BucketUnavailable("connection reset")
        return super().get_to_file(key, path, **options)


class Recording(Bucket):
    """A real bucket that knows what was fetched from it."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket._store, "recording")
        self.fetched: list[str] = []

    def get_to_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        self.fetched.append(key.rpartition("/")[2])
        return super().get_to_file(key, path, **options)


def test_fetch_that_failed_midway_is_resumed(bucket: Bucket, tmp_path: Path) -> None:
    cache = CheckpointCache(Failing(bucket._store, "failing"), tmp_path / "cache")
    with pytest.raises(BucketUnavailable, match="connection reset"):
        cache.fetch(WINDOW)
    (kept,) = visible(cache)
    assert kept.startswith("checkpoint-300.kept.")
    # A file that is not what the manifest says is fetched again, whatever left it there.
    (cache.root / kept / "config.json").write_text("{}")

    recording = Recording(bucket)
    fetched = CheckpointCache(recording, cache.root).fetch(WINDOW)
    assert {"config.json", "model.safetensors"} <= set(recording.fetched)
    assert not {"chat_template.jinja", "generation_config.json"} & set(recording.fetched)
    assert fetched.directory == cache.root / "checkpoint-300"
    assert visible(cache) == ["checkpoint-300"]


def test_folder_that_a_living_process_fills_is_left_alone(
    cache: CheckpointCache, tmp_path: Path
) -> None:
    running = partial_path(cache.root / "checkpoint-300")
    running.mkdir(parents=True)
    cache.fetch(WINDOW)
    assert sorted(visible(cache)) == sorted(["checkpoint-300", running.name])


def test_pruning_keeps_wanted_checkpoints_and_running_downloads(
    cache: CheckpointCache, tmp_path: Path
) -> None:
    cache.fetch(WINDOW)
    running = partial_path(cache.root / "checkpoint-330")
    for path in (running, cache.root / "checkpoint-30", cache.root / "checkpoint-60.0x.partial"):
        path.mkdir()
    cache.prune({WINDOW})
    assert sorted(visible(cache)) == sorted(["checkpoint-300", running.name])


def test_ready_checkpoint_is_never_published_over(bucket: Bucket, checkpoint: Path) -> None:
    with pytest.raises(CheckpointPublished, match="READY already"):
        publish_full(bucket, verify_checkpoint(checkpoint), ready_window=360, sign=TRAINER.sign)


def test_ready_marker_is_written_last(checkpoint: Path, tmp_path: Path) -> None:
    class Recording(Bucket):
        keys: list[str]

        def put(self, key: str, data: bytes, **options: Any) -> ObjectInfo:
            self.keys.append(key)
            return super().put(key, data, **options)

        def put_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
            self.keys.append(key)
            return super().put_file(key, path, **options)

    store = Recording(open_bucket(tmp_path / "bucket")._store, "recording")
    store.keys = []
    publish_full(store, verify_checkpoint(checkpoint), ready_window=330, sign=TRAINER.sign)
    assert store.keys[-3:] == [f"{FULL}/manifest.sig", f"{FULL}/FULL", ready_key(WINDOW, 330)]
    assert len(store.keys) == len(set(store.keys)) == len(store.list("grail/checkpoints/"))


def test_disks_that_fail_are_named(bucket: Bucket, tmp_path: Path) -> None:
    run_on_failing_disks(
        f"""
from windrow.resources.checkpoints.cache import CheckpointCache, CheckpointTooLarge
from windrow.resources.files import PathRefused
from windrow.resources.storage.object_store import open_bucket

bucket = open_bucket({bucket.name!r})
(small / "filler").write_bytes(bytes(600_000))
for root, error in ((small / "cache", CheckpointTooLarge), (read_only / "cache", PathRefused)):
    try:
        CheckpointCache(bucket, root).fetch({WINDOW})
    except error:
        assert not root.exists() or not list(root.iterdir())
    else:
        raise AssertionError(f"fetched to {{root}}")
""",
        small=tmp_path / "small",
        read_only=tmp_path / "read_only",
    )
