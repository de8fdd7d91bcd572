"""Checkpoint selection and layout, and what metadata.json may say (grail-protocol §7, §9)."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from windrow.networks.grail import checkpoint
from windrow.networks.grail.checkpoint import (
    CheckpointMetadata,
    GenerationPolicy,
    MalformedMetadata,
)

from .framework import Case, VectorFile, handles


@handles("grail/generation_params.json")
def generation_params(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    for index, case in enumerate(vectors["cases"]):
        yield Case(f"case-{index}", partial(check_policy, case))
    for index, case in enumerate(vectors["metadata_cases"]):
        yield Case(f"metadata-{index}", partial(check_metadata, case))


def check_policy(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(MalformedMetadata):
            GenerationPolicy.parse(case["generation_params"])
        return
    policy = GenerationPolicy.parse(case["generation_params"])
    for name in ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty"):
        assert getattr(policy, name) == case["result"][name], name


def check_metadata(case: dict[str, Any]) -> None:
    fields = case["fields"]
    assert checkpoint.missing_fields(fields) == case["missing"]
    if case["missing"]:
        with pytest.raises(MalformedMetadata):
            CheckpointMetadata.from_document(fields)
    else:
        metadata = CheckpointMetadata.from_document(fields)
        assert metadata.env_id == fields["env_id"]
        assert metadata.thinking_mode == fields["thinking_mode"]


@handles("grail/checkpoint_selection.json")
def checkpoint_selection(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    for index, case in enumerate(vectors["cases"]):
        yield Case(f"case-{index}", partial(check_selection, case))
    for case in vectors["retention"]:
        yield Case(f"retention-{case['current_window']}", partial(check_retention, case))
    for index, case in enumerate(vectors["chain_retention"]):
        yield Case(f"chain-{index}", partial(check_chain, case))
    yield Case("key-layout", partial(check_layout, vectors["key_layout"]))


def check_selection(case: dict[str, Any]) -> None:
    selected = checkpoint.select_ready(case["keys"], case["before_window"])
    assert selected == case["checkpoint_window"]


def check_retention(case: dict[str, Any]) -> None:
    window = case["current_window"]
    assert checkpoint.retained_windows(window) == case["retained"]
    assert checkpoint.anchor_window(window) == case["anchor"]
    assert (checkpoint.anchor_window(window) == window) == case["is_anchor"]


def check_chain(case: dict[str, Any]) -> None:
    previous = {int(k): v for k, v in case["chain_map"].items()}
    anchors = {int(k): v for k, v in case["anchor_map"].items()}
    kept = checkpoint.delta_dependencies(case["retained"], previous, anchors)
    assert sorted(kept) == sorted(case["keep"])


def check_layout(layout: dict[str, str]) -> None:
    window = int(layout["window_prefix"].rpartition("-")[2])
    ready = int(layout["ready"].rpartition("-")[2])
    assert layout == {
        "window_prefix": checkpoint.checkpoint_prefix(window),
        "delta": checkpoint.kind_prefix(window, "DELTA"),
        "full": checkpoint.kind_prefix(window, "FULL"),
        "delta_meta": checkpoint.metadata_key(window, "DELTA"),
        "full_meta": checkpoint.metadata_key(window, "FULL"),
        "ready": checkpoint.ready_key(window, ready),
    }
