"""A node's proof of compute, asked for, answered on the processor, and verified."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from windrow.engine.fleet import tasks
from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.frames import BadFrame, pack, to_json, unpack
from windrow.engine.fleet.poc_model import BlockModel
from windrow.engine.fleet.proof_of_compute import (
    MAX_COUNT,
    Challenge,
    Result,
    answered,
    digest,
    read_challenge,
    verify,
)
from windrow.engine.fleet.tasks import BadRequest
from windrow.networks.gonka.poc_model import PARAMETER_SETS, draw_pool, pool_size

BLOCK = "7464F5FD4216FFE6162E664009E5C34301E4D660FE4F82E63DCD098C6848D5D5"
KEY = "03f78011f6854d9b971140667c393cf9058002d8eb47e0d14cacd71811d0b12b71"
VALIDATOR = "02fc620dddcd2fc751af3a944114dbeb671ff62fe9654bdda6d50ecbb64efbd284"

FIELDS: dict[str, Any] = {
    "block_hash": BLOCK,
    "block_height": 1000,
    "public_key": KEY,
    "parameters": "tiny",
    "start": 7,
    "stride": 3,
    "count": 100,
}
CHALLENGE = Challenge(**FIELDS)
ANSWER = answered(CHALLENGE, ["cpu"])


def judged(answer: bytes, elapsed: float = 1.0, **options: Any) -> Result:
    given = {"randomness": b"r" * 32, "validator_key": VALIDATOR} | options
    return verify(CHALLENGE, answer, elapsed, **given)


def check(result: Result, name: str) -> NodeCheck:
    (found,) = (check for check in result.checks if check.check == name)
    return found


def distances(answer: bytes) -> np.ndarray:
    expected = {"distances": ("f8", (MAX_COUNT,))}
    return unpack(answer, max_bytes=1 << 20, expected=expected)[1]["distances"]


def framed(values: np.ndarray, **header: Any) -> bytes:
    named = {"challenge": digest(CHALLENGE), "devices": ["cpu"]} | header
    return pack(named, {"distances": values})


def test_an_honest_node_passes() -> None:
    result = judged(tasks.answer("proof_of_compute", CHALLENGE.to_bytes()), 2.0)
    assert [row.windrow_verdict for row in result.checks] == [True, True, None]
    assert check(result, "poc_distances").network_verdict is True
    assert (result.sampled, result.mismatched, result.nonces_per_second) == (100, (), 50.0)
    assert result.successes is not None
    assert result.successes.nonces
    assert set(result.successes.nonces) <= set(CHALLENGE.nonces)


def test_work_is_shared_out_to_devices_and_put_together_again() -> None:
    shared = distances(answered(CHALLENGE, ["cpu"] * 3))
    assert shared == pytest.approx(distances(ANSWER), abs=1e-6)


def test_half_precision_agrees_within_a_tenth_of_the_tolerance() -> None:
    model = BlockModel(CHALLENGE.block_hash, CHALLENGE.shape, dtype=torch.float16)
    half = model.distances(CHALLENGE.public_key, CHALLENGE.nonces, batch_size=16)
    assert np.abs(half - distances(ANSWER)).max() < 1e-4
    assert check(judged(framed(half)), "poc_distances").windrow_verdict


def test_weights_are_views_of_one_pool() -> None:
    shape = PARAMETER_SETS["tiny"]
    pool = draw_pool(CHALLENGE.block_hash, pool_size(shape))
    model = BlockModel(CHALLENGE.block_hash, shape, dtype=torch.float16, pool=pool)
    storages = {model.parameter(name).untyped_storage().data_ptr() for name in shape.parameters()}
    assert len(storages) == 1


def test_the_network_s_models_ask_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    request = Challenge(**FIELDS | {"parameters": "V2"}).to_bytes()
    with pytest.raises(BadRequest, match="GPU"):
        tasks.answer("proof_of_compute", request)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block_hash", BLOCK.lower()),
        ("block_hash", BLOCK + "\n"),
        ("public_key", KEY.upper()),
        ("parameters", "V3"),
        ("parameters", ["tiny"]),
        ("count", 0),
        ("count", MAX_COUNT + 1),
        ("count", 2.0),
        ("start", -1),
        ("start", 1 << 53),
        ("stride", 0),
        ("stride", True),
        ("block_height", None),
    ],
)
def test_only_a_sound_challenge_is_read(name: str, value: object) -> None:
    with pytest.raises(BadRequest):
        read_challenge(to_json(FIELDS | {name: value}))


def test_other_fields_and_no_json_are_refused() -> None:
    with pytest.raises(BadRequest):
        read_challenge(to_json(FIELDS | {"more": 1}))
    with pytest.raises(BadFrame):
        read_challenge(b" " * 5000)
    assert read_challenge(CHALLENGE.to_bytes()) == CHALLENGE


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        ANSWER[:-1],
        ANSWER + b"\0",
        framed(distances(ANSWER)[:-1]),
        framed(distances(ANSWER), challenge="0" * 64),
        framed(distances(ANSWER).astype(np.float32)),
        answered(Challenge(**FIELDS | {"start": 8}), ["cpu"]),
        bytes(1 << 24),
    ],
)
def test_what_is_no_answer_is_a_finding(answer: bytes) -> None:
    (finding,) = judged(answer).checks
    assert (finding.check, finding.windrow_verdict) == ("poc_answer", False)
    assert finding.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e300])
def test_numbers_that_are_no_distances_are_mismatches(value: float) -> None:
    forged = distances(ANSWER)
    forged[:3] = value
    result = judged(framed(forged))
    assert check(result, "poc_distances").windrow_verdict is False
    assert result.mismatched == (7, 10, 13)


def test_the_rate_is_held_to_what_cards_can_do() -> None:
    flops = CHALLENGE.shape.flops
    peak = 250 * flops / 1e12
    assert check(judged(ANSWER, 1.0, peak_tflops=peak), "poc_rate").windrow_verdict is True
    for elapsed in (0.1, 0.0, -1.0):
        fast = check(judged(ANSWER, elapsed, peak_tflops=peak), "poc_rate")
        assert fast.windrow_verdict is False
    slow = check(judged(ANSWER, 10.0, least_per_second=11.0), "poc_rate")
    assert (slow.windrow_verdict, slow.measured, slow.needed) == (False, 10.0, 11.0)
    assert slow.network_verdict is None


def test_the_network_s_verdict_can_be_left_out() -> None:
    result = judged(ANSWER, sample_size=5, network_sample_size=0)
    assert result.sampled == 5
    assert check(result, "poc_distances").network_verdict is None
