"""Advantages, group checks, sampling and sketch tolerance (§4.4, §6.4, §11.3, §11.5, §11.6)."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file

from windrow.kernels.sketch import activation_sketches
from windrow.networks.grail import sketch
from windrow.networks.grail.advantages import check_group, group_advantages
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.sampling import (
    commit_digest,
    completion_digests,
    sampled_rows,
    selected_miners,
)

from ._validation_values import column_integer
from .framework import Case, VectorFile, assert_close, handles, number


@handles("grail/advantages.json")
def advantages(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check_advantages, case))


def check_advantages(case: dict[str, Any]) -> None:
    own = group_advantages([number(reward) for reward in case["rewards"]])
    assert_close(own.tolist(), case["advantages"])
    if "sum" in case:  # what rounding leaves of 0
        assert_close([own.sum()], [case["sum"]], rel=0, abs_=1e-9)


@handles("grail/grpo_group_check.json")
def groups(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check_group_verdict, case))


def check_group_verdict(case: dict[str, Any]) -> None:
    rewards = [number(value) for value in case["rewards"]]
    claimed = [number(value) for value in case["advantages"]]
    check = check_group(rewards, claimed)
    assert check.network_verdict == case["valid"]
    finite = all(map(math.isfinite, rewards + claimed))
    assert check.windrow_verdict == (case["valid"] and finite)


@handles("grail/sampling.json")
def sampling(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    for case in vectors["cases"]:
        yield Case(f"rows-of-{case['num_groups']}-groups", partial(check_rows, case))
    for index, case in enumerate(vectors["miner_selection"]):
        yield Case(f"miners-{index}", partial(check_miners, case))
    for index, case in enumerate(vectors["completion_digests"]):
        yield Case(f"digest-{index}", partial(check_digest, case))


def check_rows(case: dict[str, Any]) -> None:
    rows = case["inferences"]
    groups = np.array([row["rollout_group"] for row in rows], np.int64)
    chosen = sampled_rows(
        groups,
        lambda row: commit_digest(rows[row]["commit"]),
        case["hotkey"],
        case["window_rand"],
    )
    assert chosen.tolist() == case["indices_to_check"]
    assert sorted(set(groups[chosen].tolist())) == sorted(case["groups_checked"])


def check_miners(case: dict[str, Any]) -> None:
    selected = selected_miners(
        case["active_hotkeys"], case["window_hash"], case["selection_counts"]
    )
    assert selected == case["selected"]


def check_digest(case: dict[str, Any]) -> None:
    prompt = column_integer(case["rollout"].get("prompt_length"))
    digests = completion_digests(
        pa.array([case["tokens"]], pa.list_(pa.int32())), pa.array([prompt], pa.int32())
    )
    assert digests == [case["digest"]]


@handles("grail/tolerance.json", uses=("grail/tolerance_hidden.safetensors",))
def tolerance(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    for case in vectors["cases"]:
        yield Case(f"position-{case['position']}", partial(check_tolerance, case))
    randomness = vectors["comparison_randomness_hex"]
    for index, case in enumerate(vectors["comparison_cases"]):
        yield Case(f"comparison-{index}", partial(check_comparison, file, randomness, case))


def check_tolerance(case: dict[str, Any]) -> None:
    assert sketch.tolerance(np.array([case["position"]])).tolist() == [case["tolerance"]]


def check_comparison(file: VectorFile, randomness: str, case: dict[str, Any]) -> None:
    hidden = load_file(file.folder / "tolerance_hidden.safetensors")["hidden"].unsqueeze(0)
    coefficients = torch.from_numpy(sketch_coefficients(randomness))
    own = activation_sketches(hidden, coefficients).numpy()
    assert own.tolist() == [case["validator_sketch"]]
    claimed, position = np.array([case["miner_sketch"]]), np.array([case["position"]])
    assert_close(sketch.distance(own, claimed).tolist(), [case["mod_diff"]])
    assert sketch.tolerance(position).tolist() == [case["tolerance"]]
    assert sketch.within_tolerance(own, claimed, position).tolist() == [case["valid"]]
    possible = isinstance(case["miner_sketch"], int) and 0 <= case["miner_sketch"] < 2**31 - 1
    assert sketch.in_range(claimed).tolist() == [possible]
