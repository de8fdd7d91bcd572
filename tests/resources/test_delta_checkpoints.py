import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from bittensor_core import Keypair
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.networks.grail.checkpoint import kind_prefix, metadata_key, ready_key
from windrow.networks.grail.delta import (
    DeltaMismatch,
    MalformedDelta,
    TensorDelta,
    UnencodableDelta,
)
from windrow.networks.grail.delta_codec import VERSIONS, DeltaFormat
from windrow.resources.checkpoints.cache import (
    CheckpointCache,
    CheckpointTooLarge,
    NoReadyCheckpoint,
)
from windrow.resources.checkpoints.delta_links import BrokenChain
from windrow.resources.checkpoints.delta_publishing import publish_delta
from windrow.resources.checkpoints.files import (
    DELTA_FILES,
    DamagedWeights,
    MissingCheckpointFile,
    UnexpectedCheckpointFile,
    UnsafeCheckpoint,
    VerifiedCheckpoint,
    WrongHash,
    WrongSignature,
    stored_tensors,
    verify_checkpoint,
)
from windrow.resources.checkpoints.publishing import (
    CheckpointPublished,
    publish_full,
    write_full_metadata,
)
from windrow.resources.models import update as model_update
from windrow.resources.models.loading import load_checkpoint
from windrow.resources.models.update import HalfUpdated, apply_in_place, update
from windrow.resources.proof_pool.worker_model import WorkerModel
from windrow.resources.storage.object_store import (
    Bucket,
    BucketUnavailable,
    ObjectInfo,
    open_bucket,
)

TRAINER = Keypair.create_from_uri("//Trainer")
ANCHOR, WINDOWS = 300, (330, 360, 390)
NORM = "model.norm.weight"
EMBEDDING = "model.embed_tokens.weight"
Change = Callable[[dict[str, Tensor]], object]


def next_checkpoint(previous: VerifiedCheckpoint, window: int, change: Change) -> Path:
    """The previous checkpoint with other weights, as one of a later window."""
    directory = previous.directory.with_name(f"trained-{window}")
    shutil.copytree(previous.directory, directory, dirs_exist_ok=True)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    old = previous.metadata.document
    names = ("model_name", "env_id", "env_params", "generation_params", "thinking_mode")
    write_full_metadata(
        directory, window=window, created_at=float(window), **{name: old[name] for name in names}
    )
    return directory


def step(window: int) -> Change:
    """Some values of some tensors, among them zeros that only change their sign."""

    def change(tensors: dict[str, Tensor]) -> None:
        generator = torch.Generator().manual_seed(window)
        for name in sorted(tensors)[:5]:
            flat = tensors[name].view(-1)
            chosen = torch.randint(len(flat), (20,), generator=generator)
            flat[chosen] = torch.randn(20, generator=generator).to(flat.dtype)
        tensors[NORM][window // 30] *= -0.0

    return change


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[VerifiedCheckpoint]:
    """A FULL checkpoint and the three trained from it, of mixed types."""
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("trainer") / "anchor", window=ANCHOR)

    def halve(tensors: dict[str, Tensor]) -> None:
        tensors[EMBEDDING] = tensors[EMBEDDING].bfloat16()
        tensors[NORM] = tensors[NORM].half()
        for at in WINDOWS:
            tensors[NORM][at // 30] = 0.0

    found = [verify_checkpoint(next_checkpoint(verify_checkpoint(folder), ANCHOR, halve))]
    for window in WINDOWS:
        found.append(verify_checkpoint(next_checkpoint(found[-1], window, step(window))))
    return found


@pytest.fixture
def bucket(trained: list[VerifiedCheckpoint], tmp_path: Path) -> Bucket:
    store = open_bucket(tmp_path / "bucket")
    publish_full(store, trained[0], ready_window=ANCHOR, sign=TRAINER.sign)
    for (previous, current), format_ in zip(pairwise(trained), VERSIONS, strict=True):
        publish(store, previous, current, format_)
    return store


@pytest.fixture
def cache(bucket: Bucket, tmp_path: Path) -> CheckpointCache:
    return CheckpointCache(bucket, tmp_path / "cache", TRAINER.ss58_address)


def publish(
    store: Bucket,
    previous: VerifiedCheckpoint,
    current: VerifiedCheckpoint,
    format_: DeltaFormat = "sparse_codec_v3.1",
) -> None:
    window = current.metadata.window
    publish_delta(
        store,
        previous,
        current,
        anchor_window=ANCHOR,
        ready_window=window,
        sign=TRAINER.sign,
        format=format_,
    )


def edit_delta(store: Bucket, window: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a DELTA's metadata as the trainer itself would, signature included."""
    key = metadata_key(window, "DELTA")
    document = json.loads(store.get(key))
    edit(document)
    store.put(key, json.dumps(document).encode())
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    store.put(f"{kind_prefix(window, 'DELTA')}/manifest.sig", TRAINER.sign(text).hex().encode())


def visible(cache: CheckpointCache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir())


def weights(checkpoint: VerifiedCheckpoint) -> bytes:
    return (checkpoint.directory / "model.safetensors").read_bytes()


class Counting(Bucket):
    """A real bucket that knows what was fetched from it, and may break."""

    def __init__(self, bucket: Bucket, broken: str = "") -> None:
        super().__init__(bucket._store, "counting")
        self.fetched: list[str] = []
        self.broken = broken

    def get_to_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        if self.broken and self.broken in key:
            raise BucketUnavailable("connection reset")
        self.fetched.append(key)
        return super().get_to_file(key, path, **options)


def test_chain_of_three_gives_the_trainers_weights(
    cache: CheckpointCache, trained: list[VerifiedCheckpoint]
) -> None:
    fetched = cache.fetch(390)
    assert weights(fetched) == weights(trained[-1])
    assert fetched.weights_hash == trained[-1].weights_hash
    assert fetched.notes == ()
    metadata = fetched.metadata
    assert (metadata.kind, metadata.window) == ("FULL", 390)
    assert metadata.policy == trained[-1].metadata.policy
    assert metadata.document["reconstructed_from_delta"] is True
    assert visible(cache) == ["checkpoint-300", "checkpoint-390"]
    assert load_checkpoint(fetched).checkpoint_window == 390


def test_rebuilt_checkpoint_is_used_again_without_the_bucket(cache: CheckpointCache) -> None:
    rebuilt = cache.fetch(360)
    offline = replace(cache, store=open_bucket(cache.root.parent / "empty"))
    assert offline.fetch(360) == rebuilt


def test_next_delta_builds_on_the_cached_checkpoint(
    cache: CheckpointCache, bucket: Bucket, trained: list[VerifiedCheckpoint]
) -> None:
    cache.fetch(360)
    shutil.rmtree(cache.root / "checkpoint-300")
    store = Counting(bucket)
    assert weights(replace(cache, store=store).fetch(390)) == weights(trained[-1])
    assert {key.split("/")[2] for key in store.fetched} == {"checkpoint-390"}


def test_broken_rebuilt_checkpoint_is_rebuilt(cache: CheckpointCache) -> None:
    directory = cache.fetch(330).directory
    data = bytearray((directory / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (directory / "model.safetensors").write_bytes(data)
    assert weights(cache.fetch(330)) != bytes(data)


def test_interrupted_chain_fetches_nothing_twice(
    cache: CheckpointCache, bucket: Bucket, trained: list[VerifiedCheckpoint]
) -> None:
    store = Counting(bucket, broken="checkpoint-390/DELTA/delta_sparse")
    with pytest.raises(BucketUnavailable):
        replace(cache, store=store).fetch(390)
    again = Counting(bucket)
    assert weights(replace(cache, store=again).fetch(390)) == weights(trained[-1])
    assert again.fetched == ["grail/checkpoints/checkpoint-390/DELTA/delta_sparse.bin.zst"]
    assert visible(cache) == ["checkpoint-300", "checkpoint-390"]


def test_vanished_link_is_named(cache: CheckpointCache, bucket: Bucket) -> None:
    for info in bucket.list("grail/checkpoints/checkpoint-330/"):
        bucket.delete(info.key)
    with pytest.raises(BrokenChain, match="DELTA of checkpoint 360 builds on checkpoint 330"):
        cache.fetch(390)
    assert not cache.root.exists() or visible(cache) == []


def test_vanished_payload_is_named(cache: CheckpointCache, bucket: Bucket) -> None:
    bucket.delete("grail/checkpoints/checkpoint-360/DELTA/delta_sparse.bin.zst")
    with pytest.raises(MissingCheckpointFile, match="checkpoint-360/DELTA/delta_sparse"):
        cache.fetch(390)


def test_flipped_byte_is_named_and_leaves_the_base_only(
    cache: CheckpointCache, bucket: Bucket
) -> None:
    key = "grail/checkpoints/checkpoint-360/DELTA/delta_sparse.bin.zst"
    data = bytearray(bucket.get(key))
    data[len(data) // 2] ^= 1
    bucket.put(key, bytes(data))
    with pytest.raises(WrongHash, match="of checkpoint 360 has SHA-256"):
        cache.fetch(390)
    assert visible(cache) == ["checkpoint-300"]


def replace_payload(store: Bucket, window: int, data: bytes) -> None:
    store.put(f"{kind_prefix(window, 'DELTA')}/delta_sparse.bin.zst", data)
    digest = hashlib.sha256(data).hexdigest()
    edit_delta(store, window, lambda d: d["file_manifest"].update({"delta_sparse.bin.zst": digest}))


def test_bomb_signed_by_the_trainer_is_refused(cache: CheckpointCache, bucket: Bucket) -> None:
    import zstandard

    replace_payload(bucket, 330, zstandard.ZstdCompressor().compress(bytes(60_000_000)))
    with pytest.raises(MalformedDelta, match="inflates to 60000000 bytes"):
        cache.fetch(330)
    assert visible(cache) == ["checkpoint-300"]


def test_delta_of_another_model_is_refused(
    cache: CheckpointCache, bucket: Bucket, tmp_path: Path
) -> None:
    other = [
        verify_checkpoint(
            make_tiny_checkpoint(tmp_path / f"other-{seed}", seed=seed, hidden=32, window=seed)
        )
        for seed in (330, 360)
    ]
    store = open_bucket(tmp_path / "other")
    publish_delta(store, *other, anchor_window=300, ready_window=360, sign=TRAINER.sign)
    key = kind_prefix(360, "DELTA")
    for name in ("delta_metadata.json", "delta_sparse.bin.zst"):
        bucket.put(f"{key}/{name}", store.get(f"{key}/{name}"))
    edit_delta(
        bucket,
        360,
        lambda d: d.update(
            file_manifest=json.loads(store.get(metadata_key(360, "DELTA")))["file_manifest"]
        ),
    )
    with pytest.raises(DeltaMismatch, match="the delta is of another checkpoint"):
        cache.fetch(360)


def test_wrong_hash_names_the_sign_of_zeros(cache: CheckpointCache, bucket: Bucket) -> None:
    edit_delta(bucket, 390, lambda d: d.update(weights_hash="0" * 32))
    with pytest.raises(WrongHash, match="zero that changed its sign"):
        cache.fetch(390)
    assert visible(cache) == ["checkpoint-300"]


def test_wrong_hash_within_the_chain_is_forgiven_only_for_a_right_one_later(
    cache: CheckpointCache, bucket: Bucket, trained: list[VerifiedCheckpoint]
) -> None:
    edit_delta(bucket, 330, lambda d: d.update(weights_hash="0" * 32))
    fetched = cache.fetch(360)
    assert weights(fetched) == weights(trained[2])
    (note,) = fetched.notes
    assert "checkpoint 330" in note
    assert "checkpoint 360 is right again" in note
    assert cache.fetch(360).notes == fetched.notes

    edit_delta(bucket, 360, lambda d: d.update(weights_hash=None))
    cache.prune({ANCHOR})
    with pytest.raises(WrongHash, match="checkpoint 330"):
        cache.fetch(360)


def test_absent_hash_is_accepted_and_noted(cache: CheckpointCache, bucket: Bucket) -> None:
    edit_delta(bucket, 390, lambda d: d.update(weights_hash=None))
    assert any("weights hash not checked" in note for note in cache.fetch(390).notes)


def test_every_link_must_be_signed(cache: CheckpointCache, bucket: Bucket) -> None:
    key = metadata_key(330, "DELTA")
    document = json.loads(bucket.get(key))
    bucket.put(key, json.dumps(document | {"model_name": "other"}).encode())
    with pytest.raises(WrongSignature, match="checkpoint 330"):
        cache.fetch(390)
    unsigned = replace(cache, trainer_hotkey=None)
    assert any("signature not checked" in note for note in unsigned.fetch(390).notes)


def test_rebuilt_checkpoint_needs_the_signature_when_a_hotkey_is_set_later(
    cache: CheckpointCache, bucket: Bucket
) -> None:
    bucket.delete(f"{kind_prefix(330, 'DELTA')}/manifest.sig")
    directory = replace(cache, trainer_hotkey=None).fetch(330).directory
    assert directory.exists()
    with pytest.raises(WrongSignature, match="checkpoint 330"):
        cache.fetch(330)


def test_bucket_cannot_pass_a_checkpoint_off_as_rebuilt(
    cache: CheckpointCache, bucket: Bucket
) -> None:
    directory = cache.fetch(330).directory
    shutil.rmtree(cache.root / "checkpoint-300")
    forged = json.loads((directory / "metadata.json").read_text())
    for name in forged["file_manifest"]:
        bucket.put_file(f"{kind_prefix(330, 'FULL')}/{name}", directory / name)
    bucket.put_file(metadata_key(330, "FULL"), directory / "metadata.json")
    shutil.rmtree(directory)
    with pytest.raises(UnsafeCheckpoint, match="claims to be rebuilt"):
        cache.fetch(330)


@pytest.mark.parametrize("previous", [None, 390, 10_000])
def test_link_that_leads_nowhere_is_refused(
    cache: CheckpointCache, bucket: Bucket, previous: int | None
) -> None:
    edit_delta(bucket, 390, lambda d: d.update(prev_window=previous))
    with pytest.raises(BrokenChain, match="none before it"):
        cache.fetch(390)


def test_unready_target_or_base_is_refused_but_not_an_unready_link(
    cache: CheckpointCache, bucket: Bucket
) -> None:
    bucket.delete(ready_key(330, 330))
    assert cache.fetch(360).metadata.window == 360
    with pytest.raises(NoReadyCheckpoint, match="checkpoint 330"):
        cache.fetch(330)
    cache.prune(())
    bucket.delete(ready_key(ANCHOR, ANCHOR))
    with pytest.raises(NoReadyCheckpoint, match="checkpoint 300"):
        cache.fetch(360)


def test_rebuilding_is_bounded_before_anything_is_copied(cache: CheckpointCache) -> None:
    cache.fetch(ANCHOR)
    with pytest.raises(CheckpointTooLarge, match="checkpoint 390"):
        replace(cache, max_bytes=10_000).fetch(390)


def test_ready_delta_is_never_published_over_and_full_may_follow_an_unmarked_one(
    bucket: Bucket, trained: list[VerifiedCheckpoint], cache: CheckpointCache
) -> None:
    with pytest.raises(CheckpointPublished):
        publish(bucket, trained[2], trained[3])
    bucket.delete(ready_key(390, 390))
    publish_delta(
        bucket, trained[2], trained[3], anchor_window=300, ready_window=None, sign=TRAINER.sign
    )
    assert cache.select(420) == 360
    publish_full(bucket, trained[3], ready_window=390, sign=TRAINER.sign)
    assert cache.select(420) == 390
    assert "reconstructed_from_delta" not in cache.fetch(390).metadata.document


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.update({NORM: t[NORM].float()}), "became float32"),
        (lambda t: t.update(extra=torch.ones(2)), "extra"),
        (lambda t: t.update({NORM: t[NORM].int()}), "I32"),
    ],
)
def test_what_no_delta_can_carry_must_be_published_full(
    trained: list[VerifiedCheckpoint], tmp_path: Path, change: Change, reason: str
) -> None:
    current = verify_checkpoint(next_checkpoint(trained[3], 420, change))
    with pytest.raises(UnencodableDelta, match=reason):
        publish(open_bucket(tmp_path / "new"), trained[3], current)


def test_changed_tokenizer_must_be_published_full(
    trained: list[VerifiedCheckpoint], tmp_path: Path
) -> None:
    verified = verify_checkpoint(next_checkpoint(trained[3], 450, step(450)))
    manifest = dict(verified.metadata.file_manifest) | {"chat_template.jinja": "0" * 64}
    other = replace(verified, metadata=replace(verified.metadata, file_manifest=manifest))
    with pytest.raises(UnencodableDelta, match=r"chat_template\.jinja differs"):
        publish(open_bucket(tmp_path / "new"), trained[3], other)


def state_of(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: t.float().numpy().tobytes() for name, t in model.state_dict().items()}


def spoil_weights(checkpoint: VerifiedCheckpoint) -> None:
    """Flip a bit in the last tensor of a checkpoint's file."""
    path = checkpoint.directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_model_in_memory_follows_the_deltas(cache: CheckpointCache) -> None:
    loaded, before = load_checkpoint(cache.fetch(ANCHOR)), ANCHOR
    for window in (330, 360):
        target = cache.fetch(window)
        update(loaded.model.state_dict(), before, target)
        assert state_of(loaded.model) == state_of(load_checkpoint(target).model)
        before = window
    with pytest.raises(BrokenChain, match="330 was made of 300 by a delta, not of 360"):
        update(loaded.model.state_dict(), before, cache.fetch(330))
    with pytest.raises(BrokenChain, match="300 was fetched whole, not of 360"):
        update(loaded.model.state_dict(), before, cache.fetch(ANCHOR))


def test_model_stays_as_it_is_when_the_result_would_be_wrong(cache: CheckpointCache) -> None:
    loaded = load_checkpoint(cache.fetch(ANCHOR))
    before = state_of(loaded.model)
    other = replace(cache.fetch(330), weights_hash="0" * 32)
    with pytest.raises(WrongHash, match="The model was not changed"):
        update(loaded.model.state_dict(), ANCHOR, other)
    assert state_of(loaded.model) == before


def test_a_delta_that_is_kept_is_none_of_the_checkpoints_files(cache: CheckpointCache) -> None:
    rebuilt, copy = cache.fetch(330), cache.root / "copy"
    (kept,) = (path for path in rebuilt.directory.iterdir() if path.is_dir())
    assert sorted(path.name for path in kept.iterdir()) == sorted(DELTA_FILES)
    assert not any(name in DELTA_FILES for name in rebuilt.metadata.file_manifest)
    shutil.copytree(rebuilt.directory, copy)
    (copy / "delta" / "model.py").write_text("")
    with pytest.raises(UnexpectedCheckpointFile, match=r"delta/model\.py"):
        verify_checkpoint(copy)


def test_a_worker_turns_by_the_delta_alone(cache: CheckpointCache) -> None:
    base, worker = cache.fetch(ANCHOR), WorkerModel("cpu")
    worker.turn_to(base.directory, base.weights_hash)
    for window in (330, 360):
        target = cache.fetch(window)
        fresh = state_of(load_checkpoint(target).model)
        # Whoever reads the weights now, rather than the delta, cannot have them right.
        spoil_weights(target)
        loaded = worker.turn_to(target.directory, target.weights_hash)
        assert state_of(loaded.model) == fresh
        assert (loaded.checkpoint_window, loaded.weights_hash) == (window, target.weights_hash)
        assert loaded.model.name_or_path == target.metadata.model_name
        spoil_weights(target)  # back to what it was
    assert worker.reloads_in_place == 2


def lose(delta: Path) -> None:
    shutil.rmtree(delta)


def damage(delta: Path) -> None:
    (delta / "delta_sparse.bin.zst").write_bytes(b"damaged")


def fail_midway(delta: Path) -> None:
    """Nothing is wrong with the delta; the device fails at it."""


@pytest.mark.parametrize("spoil", [lose, damage, fail_midway])
def test_a_worker_copies_where_anything_is_wrong_with_the_delta(
    cache: CheckpointCache,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], object],
) -> None:
    base, target, worker = cache.fetch(ANCHOR), cache.fetch(330), WorkerModel("cpu")
    worker.turn_to(base.directory, base.weights_hash)
    spoil(target.directory / "delta")
    if spoil is fail_midway:
        fail_at_the_third_change(monkeypatch)
    loaded = worker.turn_to(target.directory, target.weights_hash)
    assert state_of(loaded.model) == state_of(load_checkpoint(target).model)
    assert worker.reloads_in_place == 1

    # Two deltas on: one that is kept leads there from a checkpoint that is not in memory.
    further = cache.fetch(390)
    loaded = worker.turn_to(further.directory, further.weights_hash)
    assert state_of(loaded.model) == state_of(load_checkpoint(further).model)
    assert worker.reloads_in_place == 2


def fail_at_the_third_change(monkeypatch: pytest.MonkeyPatch) -> None:
    values, made = model_update._values, []

    def failing(change: TensorDelta) -> Tensor:
        made.append(change)
        # Each change is looked at once before any is made.
        if len(made) == 8:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return values(change)

    monkeypatch.setattr(model_update, "_values", failing)


def test_a_device_that_fails_between_tensors_is_named(
    cache: CheckpointCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_checkpoint(cache.fetch(ANCHOR)).model
    fail_at_the_third_change(monkeypatch)
    with pytest.raises(HalfUpdated, match="Load checkpoint 330 whole"):
        update(model.state_dict(), ANCHOR, cache.fetch(330))


def test_infinite_weights_are_refused_in_place(
    cache: CheckpointCache, bucket: Bucket, trained: list[VerifiedCheckpoint]
) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[EMBEDDING][3, 3] = torch.inf

    publish(bucket, trained[3], verify_checkpoint(next_checkpoint(trained[3], 480, spoil)))
    model = load_checkpoint(cache.fetch(390)).model
    with pytest.raises(DamagedWeights, match=EMBEDDING):
        update(model.state_dict(), 390, cache.fetch(480))


def test_tied_head_is_no_obstacle_in_place(tmp_path: Path) -> None:
    embedding = torch.randn(4, 3)
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(4, 3, _weight=embedding)})
    model["head"] = torch.nn.Linear(3, 4, bias=False)
    model["head"].weight = model["embed"].weight
    assert model.state_dict().keys() == {"embed.weight", "head.weight"}

    changed = embedding.clone()
    changed[1, 2] = -0.0
    for name, tensor in (("before", embedding), ("after", changed)):
        (tmp_path / name).mkdir()
        save_file({"embed.weight": tensor}, tmp_path / name / "model.safetensors")
    from windrow.resources.checkpoints.delta_publishing import _changes
    from windrow.resources.checkpoints.files import weights_hash

    changes, _ = _changes(tmp_path / "before", tmp_path / "after")
    digest = apply_in_place(
        model.state_dict(),
        changes,
        stored=stored_tensors(tmp_path / "before"),
        weights_hash=weights_hash(tmp_path / "after"),
        window=30,
    )
    assert digest == weights_hash(tmp_path / "after")
    assert torch.equal(model["head"].weight, changed)
