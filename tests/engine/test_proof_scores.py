"""Windrow's own proof check against proofs that the network lets pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.tiny_qwen2 import random_sequences, tiny_qwen2
from windrow.engine.validation.calibration import LEAST, CalibrationError, calibrate
from windrow.engine.validation.proof_scores import (
    CONSERVATIVE,
    FAR_NATS,
    Expected,
    NoCalibration,
    calibration_for,
    logit_drifts,
    proof_scores,
)
from windrow.networks.grail.constants import SKETCH_MODULUS

RNG = np.random.default_rng(3)
LENGTH, PROMPT = 230, 30
OWN = (RNG.normal(0, 1000, LENGTH).astype(np.int64)) % SKETCH_MODULUS
LOGPROBS = -RNG.exponential(1.0, LENGTH - PROMPT).astype(np.float32)
EXPECTED = Expected(
    OWN.astype(np.int32),
    margins=RNG.exponential(0.01, LENGTH).astype(np.float32),
    logprobs=LOGPROBS,
    totals=np.full(LENGTH - PROMPT, 20.0, np.float32),
)


def excess(
    sketches: np.ndarray = OWN,
    logprobs: np.ndarray = LOGPROBS,
    dtype: str = "bfloat16",
    own: Expected = EXPECTED,
) -> float:
    return max(CONSERVATIVE[dtype].excess(proof_scores(sketches, logprobs, own)).values())


def edited(start: int, stop: int) -> np.ndarray:
    sketches = OWN.copy()
    sketches[start:stop] = np.roll(OWN, 50)[start:stop]
    return sketches


def flipped(*at: int) -> np.ndarray:
    sketches = OWN.copy()
    sketches[[*at]] = (sketches[[*at]] + 200) % SKETCH_MODULUS
    return sketches


@pytest.mark.parametrize("dtype", sorted(CONSERVATIVE))
def test_a_perfect_proof_scores_nothing(dtype: str) -> None:
    assert excess(dtype=dtype) == 0.0


@pytest.mark.parametrize("at", [7, 100])
def test_a_sketch_may_differ_only_where_a_rounding_can_change_it(at: int) -> None:
    margins = np.full(LENGTH, 0.01, np.float32)
    assert excess(flipped(at), dtype="float32", own=replace(EXPECTED, margins=margins)) > 1.0
    margins[at] = 1e-6
    assert excess(flipped(at), dtype="float32", own=replace(EXPECTED, margins=margins)) < 1.0


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
        edited(130, 160),
        edited(200, LENGTH),
        np.where(np.arange(LENGTH) == 5, -1, OWN),
    ],
    ids=[
        *("zero", "huge", "negative", "nan", "reversed", "shifted", "offset", "middle", "end"),
        "one of the prompt is none",
    ],
)
def test_sketches_the_network_accepts_are_refused(sketches: np.ndarray, dtype: str) -> None:
    assert excess(sketches, dtype=dtype) > 1.0


@pytest.mark.parametrize("dtype", sorted(CONSERVATIVE))
def test_every_logprob_counts(dtype: str) -> None:
    one_token = LOGPROBS.copy()
    one_token[150] -= 3.0
    assert excess(logprobs=one_token, dtype=dtype) > 1.0
    assert excess(logprobs=LOGPROBS + 0.09, dtype=dtype) > 1.0  # the network allows ln(1.1)
    assert excess(logprobs=np.zeros_like(LOGPROBS), dtype=dtype) > 1.0
    for value in (np.nan, np.inf, -np.inf):
        hole = LOGPROBS.copy()
        hole[3] = value
        assert proof_scores(OWN, hole, EXPECTED).logit_drift == FAR_NATS


def test_a_certain_tokens_logprob_hardly_moves() -> None:
    """What logits moved by 1e-3 do to it, and what the rounding of a log-softmax does."""
    logits = torch.tensor([20.0, 8.0, 4.0], dtype=torch.float64)
    own = logits.log_softmax(0)[:1].numpy()
    moved = (logits + torch.tensor([1e-3, 0.0, 0.0])).log_softmax(0)[:1].numpy()
    totals = logits.logsumexp(0, keepdim=True).numpy()
    assert abs(moved - own).max() < 1e-8
    assert logit_drifts(moved, own, totals) == 0.0
    assert logit_drifts(own + 2e-6, own, totals) == 0.0
    uncertain = np.log([0.4])
    assert logit_drifts(uncertain + 6e-4, uncertain, totals) == pytest.approx(1e-3, rel=0.02)
    assert logit_drifts(np.zeros(1), np.zeros(1), np.zeros(1)) == 0.0


def test_one_position_is_enough_to_score() -> None:
    one = Expected(OWN[:2].astype(np.int32), *(EXPECTED.margins[:2], LOGPROBS[:1], LOGPROBS[:1]))
    assert proof_scores(OWN[:2], LOGPROBS[:1], one).stretch_distance == 0.0


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
    for name, least in LEAST["float32"].items():
        assert least <= getattr(limits, name) <= getattr(default, name)
    assert limits.sketch_drift < default.sketch_drift
    assert limits.logit_drift < default.logit_drift
    with pytest.raises(CalibrationError, match="0 sequences"):
        calibrate(model, [], [])


def test_calibration_in_bfloat16_allows_for_other_kernels_up_to_the_default() -> None:
    model = tiny_qwen2().to(torch.bfloat16)
    sequences = random_sequences(*range(40, 64))
    attention = model.config._attn_implementation
    limits, default = calibrate(model, sequences, [8] * len(sequences)), CONSERVATIVE["bfloat16"]
    assert model.config._attn_implementation == attention
    for name, least in LEAST["bfloat16"].items():
        assert least <= getattr(limits, name) <= getattr(default, name)
    assert limits.sketches_differing > LEAST["bfloat16"]["sketches_differing"]  # drift was seen
