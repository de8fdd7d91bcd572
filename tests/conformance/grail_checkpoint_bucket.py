"""A trainer's bucket: which checkpoint a window uses and what fetching and loading it gives."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from windrow.networks.grail.checkpoint import (
    CheckpointMetadata,
    GenerationPolicy,
    Kind,
    kind_prefix,
    metadata_key,
    missing_fields,
    parse_ready_key,
)
from windrow.networks.signatures import verify_signature
from windrow.resources.checkpoints.cache import CheckpointCache, NoReadyCheckpoint
from windrow.resources.checkpoints.delta_links import BrokenChain
from windrow.resources.checkpoints.files import (
    PAYLOAD,
    SIGNATURE,
    CheckpointError,
    WrongSignature,
    canonical_metadata,
    stored_tensors,
)
from windrow.resources.models.loading import load_checkpoint
from windrow.resources.models.update import update
from windrow.resources.storage.object_store import open_bucket

from .framework import Case, VectorFile, handles


@handles("grail/checkpoint_bucket.json", uses=["grail/bucket/*"])
def checkpoint_bucket(file: VectorFile) -> Iterator[Case]:
    document, bucket = file.load_json(), file.folder / "bucket"
    for index, case in enumerate(document["cases"]):
        name = f"case-{index}"
        if "requested_window" in case:
            yield Case(name, partial(check_window, bucket, case))
        elif "in-place" in case["note"]:
            yield Case(name, partial(check_in_place, bucket, document["anchor_window"], case))
        elif "byte" in case["note"]:
            yield Case(name, partial(check_refused, bucket, flip_byte, case))
        elif "weights_hash" in case["note"]:
            yield Case(name, partial(check_refused, bucket, spoil_hash, case))
        else:
            signer = document["manifest_signatures"][0]["signer_ss58"]
            yield Case(name, partial(check_altered_params, bucket, signer, case))
    for window, expected in document["expected_weights_hash"].items():
        yield Case(f"weights-{window}", partial(check_weights, bucket, int(window), expected))
    for signed in document["manifest_signatures"]:
        name = f"signature-{signed['window']}-{signed['type']}"
        yield Case(name, partial(check_manifest_signature, bucket, signed))
    yield Case("keys", partial(check_keys, bucket, document["keys"]))


def check_window(bucket: Path, case: dict[str, Any]) -> None:
    with TemporaryDirectory() as root:
        cache = CheckpointCache(open_bucket(bucket), Path(root))
        if not case["success"]:
            with pytest.raises(NoReadyCheckpoint):
                cache.select(case["requested_window"])
            return
        window = cache.select(case["requested_window"])
        assert window == case["checkpoint_window"]
        checkpoint = cache.fetch(window)
        metadata = checkpoint.metadata
        names = {path.name for path in checkpoint.directory.iterdir() if path.is_file()}
        assert names - {SIGNATURE} == set(case["files"])
        assert checkpoint.weights_hash == case["weights_hash"]
        assert metadata.env_id == case["env_id"]
        assert metadata.thinking_mode == case["thinking_mode"]
        assert metadata.policy == GenerationPolicy.parse(case["generation_params"])
        assert missing_fields(metadata.document) == case["missing"]
        loaded = load_checkpoint(checkpoint)
        assert loaded.model.name_or_path == case["model_name_or_path"]
        assert loaded.checkpoint_window == case["model_grail_checkpoint_window"]


def check_weights(bucket: Path, window: int, expected: str) -> None:
    with TemporaryDirectory() as root:
        cache = CheckpointCache(open_bucket(bucket), Path(root))
        fetched = cache.fetch(window)
        assert fetched.weights_hash == expected
        assert stored_tensors(fetched.directory)


def check_manifest_signature(bucket: Path, signed: dict[str, Any]) -> None:
    key = metadata_key(signed["window"], signed["type"])
    document = CheckpointMetadata.parse((bucket / key).read_bytes()).document
    message = canonical_metadata(document)
    assert sorted(document) == sorted(signed["metadata_keys"])
    assert hashlib.sha256(message).hexdigest() == signed["canonical_sha256"]
    valid = verify_signature(signed["signer_ss58"], message, signed["signature_hex"])
    assert valid is signed["verifies"]


def check_keys(bucket: Path, expected: list[str]) -> None:
    assert [info.key for info in open_bucket(bucket).list()] == sorted(expected)


def check_in_place(bucket: Path, anchor: int, case: dict[str, Any]) -> None:
    """First a delta on the loaded window, then one on a window that is not loaded."""
    ready = sorted(filter(None, (parse_ready_key(i.key) for i in open_bucket(bucket).list())))
    first, _, second = (window for window, _ in ready if window > anchor)
    with TemporaryDirectory() as root:
        cache = CheckpointCache(open_bucket(bucket), Path(root))
        state, target = load_checkpoint(cache.fetch(anchor)).model.state_dict(), cache.fetch(first)
        update(state, anchor, target)
        assert case["first"] is True
        assert case["second"] is False
        with pytest.raises(BrokenChain):
            update(state, first, cache.fetch(second))
        expected = load_checkpoint(target).model.state_dict()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        assert target.weights_hash == case["hash_after"] == case["expected_hash"]
        assert first == case["model_grail_checkpoint_window"]


def deltas(bucket: Path) -> list[int]:
    return sorted(
        CheckpointMetadata.parse(path.read_bytes()).window
        for path in bucket.glob("grail/checkpoints/*/DELTA/metadata.json")
    )


def flip_byte(bucket: Path, window: int) -> None:
    path = bucket / kind_prefix(window, "DELTA") / PAYLOAD
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_hash(bucket: Path, window: int) -> None:
    edit_metadata(bucket, window, "DELTA", lambda d: d.update(weights_hash="0" * 32))


def edit_metadata(
    bucket: Path, window: int, kind: Kind, edit: Callable[[dict[str, Any]], object]
) -> None:
    path = bucket / metadata_key(window, kind)
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))


def copied(bucket: Path, root: str) -> Path:
    """A copy of the bucket that may be changed."""
    copy = Path(shutil.copytree(bucket, f"{root}/bucket", copy_function=shutil.copyfile))
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    return copy


def check_refused(bucket: Path, edit: Callable[[Path, int], None], case: dict[str, Any]) -> None:
    assert case["path"] is None
    for window in deltas(bucket):
        with TemporaryDirectory() as root:
            edited = copied(bucket, root)
            edit(edited, window)
            with pytest.raises(CheckpointError):
                CheckpointCache(open_bucket(edited), Path(root, "cache")).fetch(window)


def check_altered_params(bucket: Path, signer: str, case: dict[str, Any]) -> None:
    """The network does not notice; nor does a cache without the trainer's hotkey."""
    window = deltas(bucket)[0]
    params = case["generation_params"]
    with TemporaryDirectory() as root:
        edited = copied(bucket, root)
        edit_metadata(edited, window, "DELTA", lambda d: d.update(generation_params=params))
        store = open_bucket(edited)
        fetched = CheckpointCache(store, Path(root, "cache")).fetch(window)
        assert case["loaded"] is True
        assert fetched.metadata.policy == GenerationPolicy.parse(params)
        with pytest.raises(WrongSignature):
            CheckpointCache(store, Path(root, "strict"), signer).fetch(window)
