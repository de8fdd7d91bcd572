"""A trainer's bucket: which checkpoint a window uses and what fetching and loading it gives.

Cases that need a checkpoint rebuilt from deltas are skipped, visibly.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from windrow.networks.grail.checkpoint import (
    CheckpointMetadata,
    GenerationPolicy,
    metadata_key,
    missing_fields,
)
from windrow.networks.grail.commit import verify_signature
from windrow.resources.checkpoint_files import SIGNATURE, canonical_metadata
from windrow.resources.checkpoints import CheckpointCache, DeltaOnlyCheckpoint, NoReadyCheckpoint
from windrow.resources.models import load_checkpoint
from windrow.resources.object_store import open_bucket

from .framework import Case, VectorFile, handles


@handles("grail/checkpoint_bucket.json", uses=["grail/bucket/*"])
def checkpoint_bucket(file: VectorFile) -> Iterator[Case]:
    document, bucket = file.load_json(), file.folder / "bucket"
    for index, case in enumerate(document["cases"]):
        if "requested_window" in case:
            yield Case(f"case-{index}", partial(check_window, bucket, case))
        else:
            yield Case(f"case-{index}", partial(pytest.skip, f"needs deltas: {case['note']}"))
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
        checkpoint = fetch_full(cache, window)
        metadata = checkpoint.metadata
        assert {p.name for p in checkpoint.directory.iterdir()} - {SIGNATURE} == set(case["files"])
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
        assert fetch_full(cache, window).weights_hash == expected


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


def fetch_full(cache: CheckpointCache, window: int) -> Any:
    try:
        return cache.fetch(window)
    except DeltaOnlyCheckpoint as error:
        pytest.skip(str(error))
