"""Windrow's own proof check against proofs that the network lets pass."""

import numpy as np
import pytest
import torch

from tests.support.tiny_qwen2 import random_sequences, tiny_qwen2
from windrow.engine.calibration import CalibrationError, calibrate
from windrow.engine.proof_scores import (
    CONSERVATIVE,
    FAR_NATS,
    LOGPROB_SCORES,
    SKETCH_SCORES,
    NoCalibration,
    calibration_for,
    proof_scores,
)
from windrow.networks.grail.constants import SKETCH_MODULUS

RNG = np.random.default_rng(3)
LENGTH = 200
OWN = (RNG.normal(0, 1000, LENGTH).astype(np.int64)) % SKETCH_MODULUS
LOGPROBS = -RNG.exponential(1.0, LENGTH).astype(np.float32)


def excess(
    sketches: np.ndarray = OWN, logprobs: np.ndarray = LOGPROBS, dtype: str = "bfloat16"
) -> float:
    scores = proof_scores(sketches, logprobs, OWN.astype(np.int32), LOGPROBS)
    return max(CONSERVATIVE[dtype].excess(scores).values())


def edited(start: int, stop: int) -> np.ndarray:
    sketches = OWN.copy()
    sketches[start:stop] = np.roll(OWN, 50)[start:stop]
    return sketches


@pytest.mark.parametrize("dtype", sorted(CONSERVATIVE))
def test_a_perfect_proof_scores_nothing_and_a_flip_in_64_is_forgiven(dtype: str) -> None:
    assert excess(dtype=dtype) == 0.0
    flipped = OWN.copy()
    flipped[[7, 90]] = (flipped[[7, 90]] + 2000) % SKETCH_MODULUS
    assert excess(flipped, dtype=dtype) == 0.0


@pytest.mark.parametrize("dtype", sorted(CONSERVATIVE))
@pytest.mark.parametrize(
    "sketches",
    [
        np.zeros(LENGTH, np.int64),
        np.full(LENGTH, 10**12),
        np.full(LENGTH, -1),
        np.full(LENGTH, np.nan),
        OWN[::-1],
        np.roll(OWN, 1),
        (OWN + 5900) % SKETCH_MODULUS,
        edited(100, 130),
        edited(170, LENGTH),
    ],
    ids=["zero", "huge", "negative", "nan", "reversed", "shifted", "offset", "middle", "end"],
)
def test_sketches_the_network_accepts_are_refused(sketches: np.ndarray, dtype: str) -> None:
    assert excess(sketches, dtype=dtype) > 1.0


@pytest.mark.parametrize("dtype", sorted(CONSERVATIVE))
def test_every_logprob_counts(dtype: str) -> None:
    one_token = LOGPROBS.copy()
    one_token[150] -= 3.0
    assert excess(logprobs=one_token, dtype=dtype) > 1.0
    assert excess(logprobs=LOGPROBS + 0.09, dtype=dtype) > 1.0  # the network allows ln(1.1)
    for value in (np.nan, np.inf, -np.inf):
        hole = LOGPROBS.copy()
        hole[3] = value
        scores = proof_scores(OWN, hole, OWN.astype(np.int32), LOGPROBS)
        assert scores.logprob_worst == FAR_NATS


def test_one_position_is_enough_to_score() -> None:
    scores = proof_scores(OWN[:1], LOGPROBS[:1], OWN[:1].astype(np.int32), LOGPROBS[:1])
    assert (scores.positions, scores.stretch_distance) == (1, 0.0)


def test_limits_are_of_the_models_number_format() -> None:
    assert calibration_for("float32", None) is CONSERVATIVE["float32"]
    with pytest.raises(NoCalibration, match="calibrate"):
        calibration_for("float16", None)
    with pytest.raises(NoCalibration, match="limits of the proof check are for float32"):
        calibration_for("bfloat16", CONSERVATIVE["float32"])


def test_calibration_bounds_honest_drift_below_the_default() -> None:
    model = tiny_qwen2()
    sequences = random_sequences(*range(20, 44))
    limits = calibrate(model, sequences, [8] * len(sequences))
    default = CONSERVATIVE["float32"]
    assert (limits.dtype, limits.rollouts) == ("float32", len(sequences))
    assert 0 < limits.logprob_mean < default.logprob_mean
    assert 0 < limits.sketch_distance <= default.sketch_distance
    with pytest.raises(CalibrationError, match="0 sequences"):
        calibrate(model, [], [])


def test_calibration_in_bfloat16_allows_for_other_kernels_up_to_the_default() -> None:
    model = tiny_qwen2().to(torch.bfloat16)
    sequences = random_sequences(*range(40, 64))
    attention = model.config._attn_implementation
    limits, default = calibrate(model, sequences, [8] * len(sequences)), CONSERVATIVE["bfloat16"]
    assert model.config._attn_implementation == attention
    names = [*SKETCH_SCORES, *LOGPROB_SCORES]
    assert all(0 < getattr(limits, name) <= getattr(default, name) for name in names)
    assert limits.sketches_differing > 0.1 * default.sketches_differing  # drift was seen
