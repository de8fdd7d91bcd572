"""Hostile checkpoint metadata and bucket listings."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow.networks.grail import checkpoint
from windrow.networks.grail.checkpoint import (
    CheckpointMetadata,
    GenerationPolicy,
    MalformedMetadata,
    parse_ready_key,
    window_number,
)
from windrow.networks.grail.retention import checkpoint_window

GOOD: dict[str, Any] = {
    "window": 61230,
    "file_manifest": {"model.safetensors": "0" * 64, "extra/template.jinja": "1" * 64},
    "checkpoint_type": "DELTA",
    "prev_window": 61200,
    "anchor_window": 61200,
    "weights_hash": "a" * 32,
    "model_name": "async_trainer_snapshot",
    "env_id": "gsm8k",
    "env_params": {"split": "train"},
    "thinking_mode": "instructed",
    "generation_params": {
        "max_tokens": 96,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 50,
        "repetition_penalty": 1.0,
    },
}


def test_metadata_reads_whole() -> None:
    metadata = CheckpointMetadata.parse(json.dumps(GOOD))
    assert (metadata.window, metadata.kind, metadata.prev_window) == (61230, "DELTA", 61200)
    assert metadata.policy == GenerationPolicy(96, 0.7, 0.9, 50, 1.0)
    assert metadata.file_manifest == GOOD["file_manifest"]
    assert metadata.document["model_name"] == metadata.model_name


@pytest.mark.parametrize(
    "change",
    [
        {"window": None},
        {"window": True},
        {"window": -30},
        {"window": 2**63},
        {"window": "61230"},
        {"prev_window": 1.5},
        {"checkpoint_type": "delta"},
        {"weights_hash": "../../x"},
        {"weights_hash": 7},
        {"env_params": [1]},
        {"env_id": 5},
        {"thinking_mode": ["native"]},
        {"generation_params": [1]},
        {"model_name": {}},
        {"file_manifest": None},
        {"file_manifest": ["model.safetensors"]},
        {"file_manifest": {f"f{i}": "0" * 64 for i in range(5000)}},
        {"file_manifest": {"a": "zz"}},
        {"file_manifest": {"a": None}},
    ],
)
def test_malformed_metadata_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedMetadata):
        CheckpointMetadata.from_document(GOOD | change)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a",
        "a/../b",
        "/etc/passwd",
        "a\\b",
        "a\0",
        "a\n",
        ".hidden",
        "a//b",
        "é",
        "C:x",
    ],
)
def test_a_manifest_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(MalformedMetadata, match="file name"):
        CheckpointMetadata.from_document(GOOD | {"file_manifest": {name: "0" * 64}})


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"[", "[" * 100_000, "[]", "null", "1" * 5000, "{}", " " * (5 << 20)]
)
def test_text_that_is_no_metadata_is_named(text: bytes | str) -> None:
    with pytest.raises(MalformedMetadata):
        CheckpointMetadata.parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_of_a_field_is_read_or_named(name: str, value: object) -> None:
    try:
        metadata = CheckpointMetadata.from_document(GOOD | {name: value})
    except MalformedMetadata:
        return
    assert metadata.window >= 0


@given(st.sampled_from(checkpoint.POLICY_KEYS), JSON)
def test_any_generation_parameter_is_in_range_or_named(name: str, value: object) -> None:
    try:
        policy = GenerationPolicy.parse(GOOD["generation_params"] | {name: value})
    except MalformedMetadata:
        return
    assert 0 < policy.max_new_tokens <= 8192
    assert 0.01 <= policy.temperature <= 2.0
    assert 0.0 <= policy.top_p <= 1.0
    assert policy.top_k is None or 0 < policy.top_k <= 1000
    assert 1.0 <= policy.repetition_penalty <= 2.0


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "1" * 5000])
def test_numbers_without_a_value_are_named(value: object) -> None:
    for name in checkpoint.POLICY_KEYS:
        if name == "max_tokens" and value == 10**400:
            continue  # a large but sound limit, capped
        with pytest.raises(MalformedMetadata):
            GenerationPolicy.parse(GOOD["generation_params"] | {name: value})


def test_keys_of_any_other_form_are_ignored() -> None:
    keys = [
        "grail/checkpoints/checkpoint-30/READY-60",
        "grail/checkpoints/checkpoint-90/READY-60/x",
        "grail/checkpoints/checkpoint-9.0/READY-60",
        "grail/checkpoints/checkpoint-90/READY-60-1",
        f"grail/checkpoints/checkpoint-{'9' * 30}/READY-60",
    ]
    assert checkpoint.select_ready(keys, 1000) == 30


def test_a_circle_of_deltas_ends() -> None:
    circle = {30: 60, 60: 90, 90: 30}
    assert checkpoint.delta_dependencies([30], circle, {30: 0}) == {0, 30, 60, 90}


def test_chains_end_at_their_own_anchors() -> None:
    previous = {60: 30, 30: 0, 90: 60, 0: -30}
    assert checkpoint.delta_dependencies([60, 90], previous, {60: 30, 90: 0}) == {0, 30, 60}
    assert checkpoint.delta_dependencies([60], previous, {}) == set()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("30", 30),
        ("030", 30),
        ("+30", 30),
        ("-30", -30),
        (" 30\t", 30),
        ("3_0", 30),
        ("\u0663\u0660", 30),
        ("3__0", None),
        ("30-7", None),
        ("3.0", None),
        ("0x1e", None),
        ("", None),
        ("9" * 18, 10**18 - 1),
        ("1" + "0" * 18, None),
        ("9" * 60, None),
    ],
)
def test_the_last_part_of_a_key_is_read_as_python_reads_integers(
    text: str, number: int | None
) -> None:
    assert window_number(text) == number
    assert checkpoint_window(f"grail/checkpoints/checkpoint-{text}/FULL/x") == number
    key = f"grail/checkpoints/checkpoint-60/READY-{text}"
    assert parse_ready_key(key) == (None if number is None else (60, number))
    key = f"grail/checkpoints/checkpoint-{text}/READY-60"
    assert parse_ready_key(key) == (None if number is None else (number, 60))


@pytest.mark.parametrize(
    "key",
    [
        "grail/checkpoints/checkpoint-30/READY-60/x",
        "grail/checkpoints/checkpoint-30/DELTA/READY-60",
        "checkpoints/checkpoint-30/READY-60",
        "grail/checkpoints/checkpoint-30/READY",
        "grail/checkpoints/checkpoint-30/ready-60",
    ],
)
def test_a_key_of_another_form_is_no_marker(key: str) -> None:
    assert parse_ready_key(key) is None
