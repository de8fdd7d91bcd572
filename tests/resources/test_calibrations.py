"""Limits of the proof check: measured once, kept, and never wider than the default."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.engine.validation.proof_scores import LOGPROB_SCORES, SKETCH_SCORES, calibration_for
from windrow.environments.sandbox import Sandbox
from windrow.environments.sources import ShippedTasks
from windrow.resources.calibrations import (
    Calibrations,
    DamagedCalibration,
    Limits,
    read_limits,
)
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.inference import Inference

DEFAULT = calibration_for("float32", None)
SCORES = (*SKETCH_SCORES, *LOGPROB_SCORES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return verify_checkpoint(make_tiny_checkpoint(tmp_path_factory.mktemp("c"), max_tokens=40))


@pytest.fixture(scope="module")
def inference() -> Inference:
    return Inference(ShippedTasks(), Sandbox(1), "cpu", "cpu")


@pytest.fixture(scope="module")
def measured(
    checkpoint: VerifiedCheckpoint,
    inference: Inference,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Limits]:
    root = tmp_path_factory.mktemp("calibrations")
    return root, Calibrations(root).limits(checkpoint, inference)


def kept(root: Path, checkpoint: VerifiedCheckpoint) -> Path:
    (path,) = root.glob(f"{checkpoint.weights_hash}/*.json")
    return path


def test_limits_are_measured_once_and_narrower_than_the_default(
    measured: tuple[Path, Limits], checkpoint: VerifiedCheckpoint, inference: Inference
) -> None:
    root, first = measured
    assert first.made
    assert first.seconds > 0
    assert first.calibration.rollouts == 32
    assert all(getattr(first.calibration, n) <= getattr(DEFAULT, n) for n in SCORES)
    assert any(getattr(first.calibration, n) < getattr(DEFAULT, n) for n in SCORES)
    assert Calibrations(root).limits(checkpoint, inference) == replace(first, made=False)
    assert kept(root, checkpoint).name == "float32-cpu-sdpa.json"
    assert not list(root.rglob("*.tmp"))


def changed(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: {**document, "limits": {**document["limits"], name: value}}


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: {**document, "schema_version": 0},
        lambda document: {**document, "weights_hash": "00" * 16},
        lambda document: {**document, "attention": "eager"},
        lambda document: {**document, "seconds": "1"},
        lambda document: {**document, "limits": None},
        lambda document: {**document, "limits": {}},
        lambda document: [document],
        lambda document: "x" * 100_000,
        changed("logprob_mean", 10.0),
        changed("logprob_mean", 0),
        changed("logprob_mean", float("nan")),
        changed("logprob_mean", True),
        changed("logprob_mean", "0.001"),
        changed("dtype", "bfloat16"),
        changed("source", None),
        changed("rollouts", 1.5),
        changed("extra", 1.0),
    ],
)
def test_anything_but_limits_of_this_model_is_refused(
    measured: tuple[Path, Limits],
    checkpoint: VerifiedCheckpoint,
    damage: Callable[[Any], object],
) -> None:
    root, first = measured
    sound = kept(root, checkpoint).read_bytes()
    document = json.loads(sound)
    key = {name: document[name] for name in ("weights_hash", "dtype", "device", "attention")}
    assert read_limits(sound, key, DEFAULT) == replace(first, made=False)
    with pytest.raises(DamagedCalibration):
        read_limits(json.dumps(damage(document)).encode(), key, DEFAULT)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"{", b"[" * 50_000, b"1" * 5_000])
def test_text_that_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(DamagedCalibration):
        read_limits(text, {}, DEFAULT)


def test_a_damaged_file_is_measured_again(
    measured: tuple[Path, Limits], checkpoint: VerifiedCheckpoint, inference: Inference
) -> None:
    root, first = measured
    path = kept(root, checkpoint)
    path.write_bytes(path.read_bytes()[:100])
    again = Calibrations(root).limits(checkpoint, inference)
    assert again.made
    assert again.calibration == first.calibration
    assert Calibrations(root).limits(checkpoint, inference) == replace(again, made=False)


def test_the_default_says_why_it_is_used(
    checkpoint: VerifiedCheckpoint, inference: Inference, tmp_path: Path
) -> None:
    found = Calibrations(tmp_path, wanted=False).limits(checkpoint, inference).calibration
    assert all(getattr(found, name) == getattr(DEFAULT, name) for name in SCORES)
    assert "not calibrated on this model: WINDROW_CALIBRATION=no" in found.source
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    found = Calibrations(tmp_path / "file" / "root").limits(checkpoint, inference).calibration
    assert found.rollouts == 0
    assert "not calibrated on this model: PathRefused" in found.source


def test_a_model_without_finite_numbers_keeps_the_default(
    checkpoint: VerifiedCheckpoint, tmp_path: Path
) -> None:
    broken = Inference(ShippedTasks(), Sandbox(1), "cpu", "cpu")
    with torch.no_grad():
        broken.proof_model(checkpoint).model.model.norm.weight.fill_(float("nan"))
    found = Calibrations(tmp_path).limits(checkpoint, broken)
    assert found.calibration.rollouts == 0
    assert "not calibrated on this model" in found.calibration.source
    assert not list(tmp_path.rglob("*.json"))
