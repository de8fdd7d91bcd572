"""Checks of one rollout and of a group, and the gates over a file (grail-validation §8-§10)."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from windrow.kernels.distribution import (
    DistributionInputError,
    chosen_probabilities,
    eos_probability,
)
from windrow.networks.grail import constants
from windrow.networks.grail.prf import open_indices
from windrow.networks.grail.validation import distribution as limits
from windrow.networks.grail.validation.distribution import (
    Distribution,
    Suspicions,
    check_distribution,
)
from windrow.networks.grail.validation.gates import Gates, soft_cutoff
from windrow.networks.grail.validation.groups import check_rollout_group
from windrow.networks.grail.validation.logprobs import check_logprobs, largest_deviation
from windrow.networks.grail.validation.rewards import check_reward
from windrow.networks.grail.validation.schema import check_schema, check_tokens, schema_errors
from windrow.networks.grail.validation.termination import check_termination, completion_limit
from windrow.networks.grail.validation.verdicts import HARD_CHECKS, SOFT_CHECKS

from ._validation_values import load, tensor
from .framework import Case, VectorFile, assert_close, handles

METRICS = {
    "mean": "mean",
    "median": "median",
    "q10": "q10",
    "min": "minimum",
    "low_frac": "low",
    "mid_frac": "middle",
    "high_frac": "high",
    "bc": "bimodality",
}

CONSTANTS = {
    "SAMPLING_MIN_STEPS": "MIN_STEPS",
    "SAMPLING_LOW_P": "LOW",
    "SAMPLING_HIGH_P": "HIGH",
    "SAMPLING_MEDIAN_LOW_MAX": "MAX_LOW_MEDIAN",
    "SAMPLING_LOW_Q10_MAX": "MAX_LOW_QUANTILE",
    "SAMPLING_MIN_TOKEN_PROB": "MAX_LOW_MINIMUM",
    "SAMPLING_INITIAL_WINDOW_STEPS": "INITIAL_STEPS",
}


@handles("grail-validation/schema_tokens.json")
def schema_and_tokens(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    for case in vectors["commit_cases"]:
        yield Case(case["name"], partial(check_commit, case))
    for case in vectors["token_cases"]:
        yield Case(f"tokens-{case['name']}", partial(check_ids, case))


def check_commit(case: dict[str, Any]) -> None:
    assert schema_errors(case["commit"]) == case["error_fields"]
    found = check_schema(case["commit"])
    assert found.network_verdict == case["expected_pass"]
    assert found.network_verdict or not found.windrow_verdict


def check_ids(case: dict[str, Any]) -> None:
    found = check_tokens(case["tokens"], case["vocab_size"], case["max_position_embeddings"])
    assert found.network_verdict == case["expected_pass"]


@handles("grail-validation/termination.json", uses=("grail-validation/termination.safetensors",))
def termination(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    path = file.folder / vectors["tensors"]
    measured = (vectors["min_eos_probability"], vectors["protocol_cap"])
    own = (constants.MIN_EOS_PROBABILITY, constants.MAX_COMPLETION_TOKENS)
    yield Case("constants", partial(check_same, own, measured))
    for case in vectors["cases"]:
        yield Case(case["name"], partial(check_ending, path, case))


def check_same(own: object, measured: object) -> None:
    assert own == measured


def check_ending(path: Path, case: dict[str, Any]) -> None:
    logits, eos = tensor(path, case["logits_key"]), case["eos_token_id"]
    probability = None
    if logits is not None and eos is not None:
        probability = eos_probability(logits if logits.dim() == 1 else logits[-2], eos)
        if case["eos_probability"] is not None:
            assert_close([probability], [case["eos_probability"]], rel=0, abs_=1e-5)
    found = check_termination(
        case["tokens"],
        case["rollout"].get("completion_length"),
        completion_limit(case["generation_params"].get("max_tokens")),
        eos,
        probability,
    )
    assert found.network_verdict == case["expected_pass"]


@handles("grail-validation/logprobs.json", uses=("grail-validation/logprobs.safetensors",))
def logprobs(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    path = file.folder / vectors["tensors"]
    own = (constants.CHALLENGE_POSITIONS, constants.LOGPROB_EPSILON)
    yield Case("constants", partial(check_same, own, (vectors["challenge_k"], vectors["eps"])))
    for case in vectors["cases"]:
        yield Case(case["name"], partial(check_claims, path, case))


def check_claims(path: Path, case: dict[str, Any]) -> None:
    tokens, rollout = case["tokens"], case["rollout"]
    prompt, completion = rollout["prompt_length"], rollout["completion_length"]
    positions = open_indices(tokens, prompt, completion, case["challenge_randomness"])
    if case["challenged_indices"]:
        assert positions == case["challenged_indices"]
    model = model_logprobs(tensor(path, case["logits_key"]), tokens, positions)
    model |= {int(at): value for at, value in (case["precomputed_logprobs"] or {}).items()}
    claimed = rollout.get("token_logprobs")
    found = check_logprobs(claimed, len(tokens), completion, positions, model)
    assert found.network_verdict == case["expected_pass"]
    if case["expected_median_dev"] is not None:
        assert_close([found.measured], [case["expected_median_dev"]], rel=1e-5, abs_=1e-5)
        assert len([p for p in positions if p in model]) == case["expected_total"]
        largest = largest_deviation(claimed, positions, model)
        assert_close([largest], [case["expected_max_dev"]], rel=1e-5, abs_=1e-5)


def model_logprobs(
    logits: torch.Tensor | None, tokens: list[int], positions: list[int]
) -> dict[int, float]:
    if logits is None:
        return {}
    values = torch.log_softmax(logits.float(), dim=-1)
    return {p: float(values[p - 1, tokens[p]]) for p in positions if 0 < p <= len(logits)}


@handles("grail-validation/distribution.json", uses=("grail-validation/distribution.safetensors",))
def distribution(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    path = file.folder / vectors["tensors"]
    own = {name: getattr(limits, ours) for name, ours in CONSTANTS.items()}
    yield Case("constants", partial(check_same, own, vectors["constants"]))
    for case in vectors["probability_cases"]:
        yield Case(case["name"], partial(check_probabilities, case))
    for case in vectors["logit_cases"]:
        yield Case(f"logits-{case['name']}", partial(check_logits, path, case))


def check_probabilities(case: dict[str, Any]) -> None:
    check_figures(np.array(case["probs"]), case)
    found = check_distribution(case["probs"])
    assert found.network_verdict == (not case["suspicious"])


def check_logits(path: Path, case: dict[str, Any]) -> None:
    probabilities = sampled_probabilities(tensor(path, case["logits_key"]), case)
    if probabilities is not None and case["expected_probs"] is not None:
        assert_close(probabilities.tolist(), case["expected_probs"], rel=0, abs_=1e-5)
    found = check_distribution(probabilities)
    assert found.network_verdict == case["expected_pass"]
    if case["metrics"] is None:
        assert found.reason == case["reason_text"]
    else:
        check_figures(np.asarray(probabilities, np.float64), case)


def sampled_probabilities(
    logits: torch.Tensor | None, case: dict[str, Any]
) -> np.ndarray[Any, Any] | None:
    params, rollout = case["generation_params"], case["rollout"]
    if logits is None or not {"temperature", "repetition_penalty"} <= params.keys():
        return None
    first = max(1, rollout["prompt_length"])
    end = rollout["prompt_length"] + rollout["completion_length"]
    end = min(end, len(case["tokens"]), len(logits) + 1)
    try:
        return chosen_probabilities(
            logits[first - 1 : end - 1],
            torch.tensor(case["tokens"]),
            first,
            temperature=params["temperature"],
            repetition_penalty=params["repetition_penalty"],
        ).numpy()
    except DistributionInputError:
        return None


def check_figures(probabilities: np.ndarray[Any, Any], case: dict[str, Any]) -> None:
    whole, initial = Distribution.of(probabilities), Distribution.of(probabilities[:50])
    for mine, theirs in ((whole, case["metrics"]), (initial, case["initial_metrics"])):
        assert theirs.keys() == METRICS.keys()
        for name, value in theirs.items():
            assert_close([getattr(mine, METRICS[name])], [value], rel=1e-5, abs_=1e-5)
    assert vars(Suspicions.of(whole, initial)) == case["reasons"]


@handles("grail-validation/reward_groups_gates.json")
def rewards_groups_gates(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    for index, case in enumerate(vectors["reward"]):
        yield Case(f"reward-{index}", partial(check_claimed_reward, case))
    for case in vectors["groups"]:
        yield Case(f"group-{case['name']}", partial(check_groups, case))
    for index, case in enumerate(vectors["soft_gate"]):
        yield Case(f"gate-{index}", partial(check_gates, case))
    yield Case("keys", partial(check_keys, vectors))


def check_claimed_reward(case: dict[str, Any]) -> None:
    found = check_reward(case["miner"], case["validator"])
    assert found.network_verdict == case["expected_pass"]


def check_groups(case: dict[str, Any]) -> None:
    found = []
    for rows in case["groups"].values():
        rollouts = [row["commit"]["rollout"] for row in rows]
        rewards = [rollout["total_reward"] for rollout in rollouts]
        advantages = [rollout["advantage"] for rollout in rollouts]
        seeds = [row["commit"].get("env", {}).get("seed") for row in rows]
        group = check_rollout_group(rewards, advantages, seeds)
        finite = all(map(math.isfinite, rewards + advantages))
        assert group.windrow_verdict == (group.network_verdict and finite)
        found.append(group)
    assert all(group.network_verdict for group in found) == case["expected_valid"]


def check_gates(case: dict[str, Any]) -> None:
    gates = Gates(case["planned_checks"])
    assert gates.cutoffs == case["cutoffs"]
    for step in case["sequence"]:
        gates = gates.after(step["checks"])
        assert gates.open == step["continue"]
    assert {
        "hard_failure": gates.hard_failure,
        "soft_gate_triggered": gates.soft_triggered,
        "failure_reason": gates.reason,
        "soft_failures": dict(gates.soft_failures),
    } == case["final"]


def check_keys(vectors: dict[str, Any]) -> None:
    assert list(HARD_CHECKS) == vectors["hard_keys"]
    assert list(SOFT_CHECKS) == vectors["soft_keys"]
    assert dict(SOFT_CHECKS) == vectors["soft_thresholds"]
    assert soft_cutoff(SOFT_CHECKS["reward_valid"], 0) == 1
