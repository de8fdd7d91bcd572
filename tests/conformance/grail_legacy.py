"""Helpers that the reference exports and no longer calls; the formulas live here only."""

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from windrow.networks.grail.prf import MalformedRandomness, normalise_hex, prf
from windrow.networks.grail.sampling import completion_digests

from ._validation_values import load
from .framework import Case, VectorFile, handles

MAX_WIDTH = 100_000


@handles("grail/r_vec_legacy.json")
def r_vec_legacy(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check_vector, case))


def check_vector(case: dict[str, Any]) -> None:
    """The sketch's PRF stream, but as one big-endian int32 for every hidden dimension."""
    if "error" in case:
        with pytest.raises((MalformedRandomness, ValueError)):
            coefficients(case["randomness_hex"], case["d_model"])
        return
    vector = coefficients(case["randomness_hex"], case["d_model"])
    assert vector[:8].tolist() == case["first8"]
    assert hashlib.sha256(vector.tobytes()).hexdigest() == case["sha256_le_int32"]


def coefficients(randomness: str, width: int) -> np.ndarray:
    beacon = normalise_hex(randomness)
    if not beacon or not 1 <= width <= MAX_WIDTH:
        raise ValueError("no randomness, or a width that no model has")
    return np.frombuffer(prf(b"sketch", [beacon], 4 * width), ">i4").astype("<i4")


@handles("grail-validation/legacy_scorer.json")
def legacy_scorer(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(load(file)["cases"]):
        yield Case(f"case-{index}", partial(check_scorer, case))


def check_scorer(case: dict[str, Any]) -> None:
    """Counts of the checked rollouts, each divided by the sample rate (grail-validation §11.4)."""
    results, commits = case["validation_results"], [r["commit"] for r in case["rollouts"]]
    passed = [commit for (valid, _), commit in zip(results, commits, strict=True) if valid]
    digests = completion_digests(
        pa.array([commit["tokens"] for commit in passed], pa.list_(pa.int32())),
        pa.array([commit["rollout"]["prompt_length"] for commit in passed], pa.int64()),
    )
    counts = {
        "valid": len(passed),
        "successful": sum(commit["rollout"]["success"] for commit in passed),
        "unique": len(set(digests)),
    }
    checked, total = case["checked_count"], case["total_count"]
    rate = checked / total if total else 0.0
    prompts = [checks.get("prompt_valid") for _, checks in results]
    assert case["expected"] == {
        **counts,
        **{f"estimated_{key}": int(n / rate) if rate else 0 for key, n in counts.items()},
        "checked": checked,
        "total": total,
        "prompt_valid": prompts.count(True),
        "prompt_mismatch": prompts.count(False),
    }
