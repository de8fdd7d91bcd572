"""A trainer's bucket of FULL and DELTA checkpoints, and what faults in it do (§19)."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from torch import Tensor

from windrow import WindrowError
from windrow.networks.grail.checkpoint import (
    CheckpointMetadata,
    MalformedMetadata,
    kind_prefix,
    metadata_key,
    parse_ready_key,
    retained_windows,
    select_ready,
)
from windrow.networks.grail.delta import weights_digest
from windrow.networks.grail.retention import Inventory, checkpoint_window
from windrow.networks.signatures import verify_signature
from windrow.resources.checkpoints.cache import CheckpointCache, NoReadyCheckpoint
from windrow.resources.checkpoints.delta_links import BrokenChain, read_link
from windrow.resources.checkpoints.files import (
    DELTA_METADATA,
    PAYLOAD,
    SIGNATURE,
    MissingCheckpointFile,
    UnsafeCheckpoint,
    VerifiedCheckpoint,
    WrongHash,
    WrongSignature,
    canonical_metadata,
)
from windrow.resources.models.update import update
from windrow.resources.storage.object_store import Bucket, ObjectInfo, open_bucket

from ._delta_values import load as load_tensors
from ._delta_values import raw
from ._validation_values import load
from .framework import Case, VectorFile, handles
from .grail_checkpoint_bucket import copied, edit_metadata, flip_byte, spoil_hash

Check = Callable[[Path, CheckpointCache], None]
WEIGHTS = "model.safetensors"

# What Windrow refuses although the network uses it (§26.21): unverifiable or of no use.
STRICTER: dict[str, type[WindrowError]] = {
    "full_weights_hash_wrong_is_ignored": WrongHash,
    "no_metadata_best_effort_full_listing": MissingCheckpointFile,
    "full_metadata_empty_manifest_best_effort": UnsafeCheckpoint,
    "legacy_metadata_without_env_still_downloads": MalformedMetadata,
}


@handles(
    "grail-validation/checkpoint_bucket/expected.json",
    uses=["grail-validation/checkpoint_bucket/objects/*"],
)
def checkpoint_bucket(file: VectorFile) -> Iterator[Case]:
    vectors, bucket = load(file), file.folder / "objects"

    def case(name: str, check: Callable[..., None], expected: Any) -> Case:
        return Case(name, partial(with_cache, bucket, partial(check, expected)))

    yield case("listing", check_listing, vectors)
    for each in vectors["discovery"]:
        yield case(f"discovery-{each['before_window']}", check_discovery, each)
    for each in vectors["cold_get_checkpoint"]:
        yield case(f"cold-{each['window']}", check_cold, each)
    yield case("warm-sequence", check_warm, vectors["warm_sequence"])
    yield case("metadata-preference", check_preference, vectors["metadata_preference_at_anchor"])
    for each in vectors["apply_in_place"]:
        yield case(f"in-place-{each['current']}-{each['target']}", check_in_place, each)
    yield case("fast-path-cache", check_fast_path_cache, vectors["fast_path_cache"])
    for index, each in enumerate(vectors["load_or_update_model"]):
        yield case(f"load-or-update-{index}", check_load_or_update, each)
    for each in vectors["faults"]:
        check = partial(check_fault, vectors["trainer_ss58"])
        yield case(f"fault-{each['name']}", check, each)
    signed = vectors["manifest_signature"] | {"signer": vectors["trainer_ss58"]}
    yield case("signature", check_signature, signed)
    yield case("config-hash", check_config_hash, vectors["config_hash_check"])
    yield case("cleanup", check_cleanup, vectors["cleanup_local"])


def with_cache(bucket: Path, check: Check) -> None:
    with TemporaryDirectory() as root:
        check(bucket, CheckpointCache(open_bucket(bucket), Path(root, "cache")))


def check_listing(vectors: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    keys = [info.key for info in cache.store.list()]
    assert keys == sorted(vectors["objects"])
    assert sorted(Inventory.of(keys).windows) == vectors["list_remote_windows"]
    ready = {window for window, _ in filter(None, map(parse_ready_key, keys))}
    assert sorted(set(vectors["list_remote_windows"]) - ready) == vectors["not_ready"]
    for window, digest in vectors["weights_hash_by_window"].items():
        if int(window) in ready:
            assert cache.fetch(int(window)).weights_hash == digest


def check_discovery(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    keys = [info.key for info in cache.store.list()]
    full = {checkpoint_window(key) for key in keys if "/FULL/" in key}
    before = case["before_window"]
    assert select_ready(keys, before) == case["latest_ready"]
    of_full = [key for key in keys if checkpoint_window(key) in full]
    assert select_ready(of_full, before) == case["latest_full"]


def check_cold(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    if not case["available"]:
        with pytest.raises(NoReadyCheckpoint):
            cache.fetch(case["window"])
        return
    fetched = cache.fetch(case["window"])
    names = {path.name for path in fetched.directory.iterdir() if path.is_file()}
    assert names - {SIGNATURE} == set(case["files"])
    assert fetched.weights_hash == case["weights_hash"]
    # Windrow keeps all of the trainer's metadata, and so has the type of a FULL one too.
    assert case["checkpoint_type"] in {None, fetched.metadata.kind}
    rebuilt = fetched.metadata.document.get("reconstructed_from_delta")
    assert rebuilt == case["reconstructed_from_delta"]
    assert folders(cache) == case["cache_dirs"]


class Recording(Bucket):
    def __init__(self, bucket: Path) -> None:
        super().__init__(open_bucket(bucket)._store, "recording")
        self.fetched: list[str] = []

    def get_to_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        self.fetched.append(key)
        return super().get_to_file(key, path, **options)


def check_warm(steps: list[dict[str, Any]], bucket: Path, cache: CheckpointCache) -> None:
    for step in steps:
        store = Recording(bucket)
        fetched = replace(cache, store=store).fetch(step["window"])
        assert step["ok"] is True
        assert fetched.metadata.window == step["window"]
        assert sorted(store.fetched) == step["downloads"]


def check_preference(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    """What is asked for follows the DELTA even where a FULL one exists."""
    sizes = {info.key: info.size for info in cache.store.list()}
    link = read_link(cache.store, case["window"], sizes, cache.trainer_hotkey)
    metadata = link.metadata
    assert (metadata.kind, link.previous) == (case["type"], case["prev"])
    assert metadata.anchor_window == case["anchor"]
    assert cache.fetch(case["window"]).metadata.policy == metadata.policy


def check_in_place(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    current, window = case["current"], case["target"]
    state = state_of(cache.fetch(current))
    if current != window and (bucket / metadata_key(window, "DELTA")).exists():
        # Windrow fetches the FULL one where there are both, and keeps no delta then.
        bucket = copied(bucket, str(cache.root.parent))
        shutil.rmtree(bucket / kind_prefix(window, "FULL"), ignore_errors=True)
        cache = replace(cache, store=open_bucket(bucket))
    try:
        target = cache.fetch(window)
        update(state, current, target)
    except (BrokenChain, NoReadyCheckpoint):
        assert case["applied"] is False
        assert case["grail_checkpoint_window"] is None
    else:
        assert case["applied"] is True
        assert target.metadata.window == case["grail_checkpoint_window"]
        assert target.weights_hash == case["hash_after"]
    assert weights_digest(raw(state)) == case["hash_after"]


def check_fast_path_cache(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    """The network's copy has no manifest and is fetched again (§26.23); ours is used again."""
    described = case["metadata_json"]
    window = described["window"]
    cache.fetch(previous(bucket, window))
    store = Recording(bucket)
    metadata = replace(cache, store=store).fetch(window).metadata
    assert metadata.kind == described["checkpoint_type"]
    assert metadata.weights_hash == described["weights_hash"]
    assert sorted(store.fetched) == case["later_get_checkpoint_redownloads"]
    replace(cache, store=store).fetch(window)
    assert len(store.fetched) == len(case["later_get_checkpoint_redownloads"])


def check_load_or_update(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    """In place where one delta leads on from what is loaded, else fetched and loaded whole."""
    if not case["success"]:
        with pytest.raises(NoReadyCheckpoint):
            cache.select(case["target_window"])
        return
    window = cache.select(case["target_window"])
    assert window == case["window"]
    method = "full"
    if case["model_loaded"]:
        base = cache.fetch(case["current_window"])
        try:
            update(state_of(base), case["current_window"], cache.fetch(window))
            method = "fast"
        except BrokenChain:
            pass
    assert method == case["method"]
    if method == "full":
        assert cache.fetch(window).directory.name == case["path"]


def check_fault(trainer: str, case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    name, window = case["name"], case["window"]
    assert name in FAULTS, f"a fault unknown when this was written: {name}"
    edited = copied(bucket, str(cache.root.parent))
    FAULTS[name](edited, window)
    cache = replace(cache, store=open_bucket(edited))
    if name in STRICTER:
        assert case["available"] is True
        with pytest.raises(STRICTER[name]):
            cache.fetch(window)
        return
    if not case["available"]:
        with pytest.raises(WindrowError):
            cache.fetch(window)
        # Windrow may notice before it has fetched as much; it leaves nothing half done.
        assert set(folders(cache)) <= set(case["leftover_dirs"])
        return
    assert cache.fetch(window).weights_hash == case["weights_hash"]
    assert folders(cache) == case["leftover_dirs"]
    if "signature" in name:
        with pytest.raises((WrongSignature, MissingCheckpointFile)):
            replace(cache, root=cache.root / "strict", trainer_hotkey=trainer).fetch(window)
    elif "weights_hash" in name:
        assert any("hash" in note for note in cache.fetch(window).notes)


def previous(bucket: Path, window: int) -> int:
    text = (bucket / metadata_key(window, "DELTA")).read_bytes()
    found = CheckpointMetadata.parse(text).prev_window
    assert found is not None
    return found


def anchor(bucket: Path, window: int) -> int:
    text = (bucket / metadata_key(window, "DELTA")).read_bytes()
    found = CheckpointMetadata.parse(text).anchor_window
    assert found is not None
    return found


def remove_ready(bucket: Path, window: int) -> None:
    for path in bucket.glob(f"grail/checkpoints/checkpoint-{window}/READY-*"):
        path.unlink()


def corrupt_full(bucket: Path, window: int) -> None:
    path = bucket / kind_prefix(window, "FULL") / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def name_unknown_format(bucket: Path, window: int) -> None:
    path = bucket / kind_prefix(window, "DELTA") / DELTA_METADATA
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format": "sparse_codec_v9"}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_metadata(
        bucket, window, "DELTA", lambda d: d["file_manifest"].update({DELTA_METADATA: digest})
    )


def drop_environment(document: dict[str, Any]) -> None:
    for key in ("env_id", "env_params", "generation_params", "thinking_mode"):
        document.pop(key)


FAULTS: dict[str, Callable[[Path, int], object]] = {
    "corrupt_full_weights": corrupt_full,
    "corrupt_delta_payload": flip_byte,
    "missing_delta_payload": lambda b, w: (b / kind_prefix(w, "DELTA") / PAYLOAD).unlink(),
    "intermediate_metadata_missing": lambda b, w: (
        b / metadata_key(previous(b, w), "DELTA")
    ).unlink(),
    "final_weights_hash_wrong": spoil_hash,
    "intermediate_weights_hash_wrong_is_ignored": lambda b, w: spoil_hash(b, previous(b, w)),
    "final_weights_hash_absent_is_accepted": lambda b, w: edit_metadata(
        b, w, "DELTA", lambda d: d.update(weights_hash=None)
    ),
    "full_weights_hash_wrong_is_ignored": lambda b, w: edit_metadata(
        b, w, "FULL", lambda d: d.update(weights_hash="0" * 32)
    ),
    "manifest_signature_garbage_is_ignored": lambda b, w: (
        b / kind_prefix(w, "FULL") / SIGNATURE
    ).write_text("garbage"),
    "manifest_signature_missing_is_ignored": lambda b, w: (
        b / kind_prefix(w, "FULL") / SIGNATURE
    ).unlink(),
    "ready_marker_removed": remove_ready,
    "anchor_ready_marker_removed_breaks_chain": lambda b, w: remove_ready(b, anchor(b, w)),
    "intermediate_ready_marker_not_needed": lambda b, w: remove_ready(b, previous(b, w)),
    "delta_prev_window_null": lambda b, w: edit_metadata(
        b, w, "DELTA", lambda d: d.update(prev_window=None)
    ),
    "unknown_delta_format": name_unknown_format,
    "full_missing_at_anchor_uses_delta_chain": lambda b, w: shutil.rmtree(
        b / kind_prefix(w, "FULL")
    ),
    "no_metadata_best_effort_full_listing": lambda b, w: (b / metadata_key(w, "FULL")).unlink(),
    "full_metadata_empty_manifest_best_effort": lambda b, w: edit_metadata(
        b, w, "FULL", lambda d: d.update(file_manifest={})
    ),
    "legacy_metadata_without_env_still_downloads": lambda b, w: edit_metadata(
        b, w, "FULL", drop_environment
    ),
}


def check_signature(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    text = (bucket / metadata_key(case["window"], "FULL")).read_bytes()
    document = CheckpointMetadata.parse(text).document
    message = canonical_metadata(document)
    assert sorted(document) == sorted(case["full_metadata_keys"])
    assert hashlib.sha256(message).hexdigest() == case["canonical_sha256"]
    valid = verify_signature(case["signer"], message, case["signature_hex"])
    assert valid is case["verifies"]
    replace(cache, trainer_hotkey=case["signer"]).fetch(case["window"])


def check_config_hash(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    text = json.dumps(case["training_config"], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == case["config_hash"]


def check_cleanup(case: dict[str, Any], bucket: Path, cache: CheckpointCache) -> None:
    def concrete(name: str) -> str:
        return name.replace("<LIVE_PID>", str(os.getpid()))

    for name in case["before"]:
        (cache.root / concrete(name)).mkdir(parents=True)
    cache.prune(retained_windows(case["current_window"]))
    assert folders(cache) == sorted(map(concrete, case["after"]))


def state_of(checkpoint: VerifiedCheckpoint) -> dict[str, Tensor]:
    return {
        name: tensor.clone()
        for name, tensor in load_tensors(checkpoint.directory / WEIGHTS).items()
    }


def folders(cache: CheckpointCache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir()) if cache.root.exists() else []
