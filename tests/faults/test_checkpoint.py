"""A checkpoint that cannot be used: the window is skipped with the reason, the next one mined."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2ForCausalLM

from tests.faults.runs import Home, assert_completes, assert_refused, publish
from windrow.networks.grail.checkpoint import kind_prefix, metadata_key
from windrow.pipelines.demo.network import trainer
from windrow.resources.checkpoints.delta_links import PAYLOAD
from windrow.resources.checkpoints.delta_publishing import publish_delta
from windrow.resources.checkpoints.files import METADATA, verify_checkpoint
from windrow.resources.checkpoints.publishing import write_full_metadata
from windrow.resources.storage.object_store import open_bucket

Make = Callable[..., Path]
WINDOW = 300


def described(folder: Path, **changes: object) -> Path:
    """The folder with its metadata written anew for the files that it holds now."""
    old = json.loads((folder / METADATA).read_text()) | changes
    write_full_metadata(
        folder,
        **{
            name: old[name]
            for name in (
                "window",
                "model_name",
                "env_id",
                "env_params",
                "generation_params",
                "thinking_mode",
                "created_at",
            )
        },
    )
    return folder


def stored(home: Home, name: str) -> Path:
    """A file of the later checkpoint in the folder that is the bucket."""
    return home.path / "bucket" / kind_prefix(WINDOW, "FULL") / name


def missing_shard(home: Home, make: Make) -> None:
    folder = make(WINDOW)
    model = Qwen2ForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="300KB")
    publish(home.path / "bucket", described(folder), ready_window=WINDOW)
    stored(home, "model-00002-of-00003.safetensors").unlink()


def wrong_hash(home: Home, make: Make) -> None:
    publish(home.path / "bucket", make(WINDOW), ready_window=WINDOW)
    weights = stored(home, "model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def nan_weight(home: Home, make: Make) -> None:
    folder = make(WINDOW)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][5, 7] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    publish(home.path / "bucket", described(folder), ready_window=WINDOW)


def malformed_metadata(home: Home, make: Make) -> None:
    publish(home.path / "bucket", make(WINDOW), ready_window=WINDOW)
    path = home.path / "bucket" / metadata_key(WINDOW, "FULL")
    document = json.loads(path.read_text())
    del document["generation_params"]["top_p"]
    path.write_text(json.dumps(document))


def changed_metadata(home: Home, make: Make) -> None:
    publish(home.path / "bucket", make(WINDOW), ready_window=WINDOW)
    path = home.path / "bucket" / metadata_key(WINDOW, "FULL")
    path.write_text(path.read_text().replace('"temperature": 0.7', '"temperature": 0.9'))


def publish_changes(home: Home, make: Make, base: int) -> Path:
    """Publish a DELTA of one changed weight on the checkpoint of another window."""
    previous, folder = verify_checkpoint(make(base)), make(WINDOW)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][5, 7] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    publish_delta(
        open_bucket(home.path / "bucket"),
        previous,
        verify_checkpoint(described(folder)),
        anchor_window=0,
        ready_window=WINDOW,
        sign=trainer().sign,
    )
    return home.path / "bucket" / kind_prefix(WINDOW, "DELTA") / PAYLOAD


def lost_delta(home: Home, make: Make) -> None:
    publish_changes(home, make, base=270)


def damaged_delta(home: Home, make: Make) -> None:
    payload = publish_changes(home, make, base=0)
    data = bytearray(payload.read_bytes())
    data[-1] ^= 1
    payload.write_bytes(data)


def unknown_environment(home: Home, make: Make) -> None:
    publish(home.path / "bucket", make(WINDOW, env_id="chess"), ready_window=WINDOW)


@pytest.mark.parametrize(
    ("spoil", "step", "reason", "words"),
    [
        (missing_shard, "checkpoint", "MissingCheckpointFile", ["model-00002-of-00003", "wait"]),
        (wrong_hash, "checkpoint", "WrongHash", ["model.safetensors", "fetch it again"]),
        (nan_weight, "window_stream", "DamagedWeights", ["lm_head.weight", "wait for the next"]),
        (malformed_metadata, "checkpoint", "MalformedMetadata", ["generation_params.top_p"]),
        (changed_metadata, "checkpoint", "WrongSignature", ["checkpoint 300", "altered"]),
        (lost_delta, "checkpoint", "BrokenChain", ["checkpoint 270", "FULL"]),
        (damaged_delta, "checkpoint", "WrongHash", [PAYLOAD, "wait for a FULL"]),
        (unknown_environment, "window_stream", "UnknownEnvironment", ["'chess'", "gsm8k"]),
    ],
)
def test_a_checkpoint_that_cannot_be_used(
    home: Home,
    make_checkpoint: Make,
    undisturbed: pa.Table,
    spoil: Callable[[Home, Make], None],
    step: str,
    reason: str,
    words: list[str],
) -> None:
    spoil(home, make_checkpoint)
    assert_refused(home, home.mine(), step, reason, *words)
    assert home.spooled() == []
    assert home.uploaded() is None
    if step == "checkpoint":
        assert not (home.path / "cache" / "checkpoints" / f"checkpoint-{WINDOW}").exists()
    publish(home.path / "bucket", make_checkpoint(330), ready_window=330)
    assert_completes(home, undisturbed)


def test_groups_of_the_sound_checkpoint_outlive_a_spoiled_one(
    home: Home, make_checkpoint: Make, undisturbed: pa.Table
) -> None:
    assert home.mine().success
    nan_weight(home, make_checkpoint)
    assert_refused(home, home.mine(), "window_stream", "DamagedWeights", "lm_head.weight")
    assert home.spooled() == [0, 1]
    assert home.groups().equals(undisturbed.slice(0, 32))


def test_window_is_mined_with_a_checkpoint_rebuilt_from_a_delta(
    home: Home, make_checkpoint: Make
) -> None:
    publish_changes(home, make_checkpoint, base=0)
    assert home.mine().success
    rebuilt = home.path / "cache" / "checkpoints" / f"checkpoint-{WINDOW}" / METADATA
    assert json.loads(rebuilt.read_text())["reconstructed_from_delta"] is True


def test_no_checkpoint_was_ready_before_the_window(home: Home) -> None:
    refused = home.mine(window=0)
    assert_refused(home, refused, "checkpoint", "NoReadyCheckpoint", "window 0", "skip", window=0)
    assert home.uploaded(0) is None
