"""The validator's checks on hostile values, and where Windrow is stricter than the network."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow.networks.grail.validation.distribution import check_distribution
from windrow.networks.grail.validation.groups import check_rollout_group
from windrow.networks.grail.validation.logprobs import check_logprobs
from windrow.networks.grail.validation.rewards import check_reward, check_success
from windrow.networks.grail.validation.schema import check_schema, check_tokens
from windrow.networks.grail.validation.sketches import check_sketches
from windrow.networks.grail.validation.termination import check_termination, completion_limit
from windrow.networks.grail.validation.verdicts import (
    VERDICT_SCHEMA,
    CheckResult,
    Place,
    verdict_table,
    violation_verdicts,
)
from windrow.networks.grail.violations import Severity, Violations

HUGE = 10**400
numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(HUGE),
    st.just(-HUGE),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.just("\ud800"),
    st.lists(st.integers(), max_size=2),
)
json_values = st.recursive(
    numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
POSITIONS = list(range(8, 40))


def commit(**rollout: Any) -> dict[str, Any]:
    return {
        "tokens": [1] * 40,
        "commitments": [{"sketch": 0}] * 40,
        "proof_version": "v5",
        "model": {"name": "m", "layer_index": -1},
        "signature": "ab",
        "beacon": {"randomness": "ab"},
        "rollout": {
            "prompt_length": 8,
            "completion_length": 32,
            "success": True,
            "total_reward": 0.5,
            "advantage": 0.0,
            "token_logprobs": [0.0] * 40,
        }
        | rollout,
    }


def verdicts(found: CheckResult) -> tuple[bool, bool]:
    return found.network_verdict, found.windrow_verdict


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (True, True)),
        ({"success": "yes"}, (True, False)),
        ({"success": 1}, (True, False)),
        ({"completion_length": "32"}, (True, False)),
        ({"completion_length": 32.0}, (True, False)),
        ({"total_reward": math.nan}, (True, False)),
        ({"advantage": math.inf}, (True, False)),
        ({"token_logprobs": [math.nan] * 40}, (True, False)),
        ({"total_reward": "nan"}, (True, False)),
        ({"total_reward": 1}, (True, True)),
        ({"completion_length": 32.5}, (False, False)),
    ],
)
def test_values_that_only_the_network_takes(
    fields: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    assert verdicts(check_schema(commit(**fields))) == expected


@given(json_values, st.sampled_from(sorted(commit()["rollout"])))
def test_any_rollout_field_gets_a_verdict(value: Any, field: str) -> None:
    found = check_schema(commit(**{field: value}))
    assert found.network_verdict or found.reason


@given(json_values)
def test_any_commit_gets_a_verdict(value: Any) -> None:
    assert not check_schema(value).network_verdict


@pytest.mark.parametrize(
    ("max_tokens", "limit"),
    [(100, 100), ("100", 100), (100.9, 100), (True, 1), (None, 8192), (math.nan, 8192),
     (math.inf, 8192), (HUGE, 8192), ("9" * 5000, 8192), (-1, 8192), ([1], 8192)],
)  # fmt: skip
def test_completion_limit_of_any_value(max_tokens: object, limit: int) -> None:
    assert completion_limit(max_tokens) == limit


@pytest.mark.parametrize(
    ("tokens", "length", "probability", "expected"),
    [
        ([3, 1, 1, 3], 3, 0.5, (True, True)),
        ([3, 3, 1, 3], 3, 0.5, (True, False)),  # goes on after EOS
        ([3, 1, 3, 1], 3, 0.5, (False, False)),
        ([1, 1, 1, 3], 3, math.nan, (False, False)),
        ([1, 1, 1, 3], 3, None, (False, False)),
        ([1, 3, 1, 1, 1], 4, None, (True, False)),  # at the limit, and after EOS
        ([1, 1, 1, 1, 1], 4, None, (True, True)),
        ([1, 1, 1, 1, 1], 4.0, None, (True, False)),
        ([1, 1, 1, 1, 1], 5, None, (False, False)),
        ([1, 1, 1, 3], HUGE, 0.5, (False, False)),
        ([1, 1, 1, 3], None, 0.5, (True, True)),
    ],
)
def test_termination(
    tokens: list[int], length: object, probability: float | None, expected: tuple[bool, bool]
) -> None:
    assert verdicts(check_termination(tokens, length, 4, 3, probability)) == expected


@given(st.lists(numbers, min_size=40, max_size=40))
def test_any_claimed_logprobs_get_a_verdict(claimed: list[Any]) -> None:
    found = check_logprobs(claimed, 40, 32, POSITIONS, dict.fromkeys(POSITIONS, -1.0))
    assert found.network_verdict or not found.windrow_verdict


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, True)),
        ({8: -math.inf}, (True, False)),
        ({0: math.nan}, (True, False)),  # never challenged
        ({0: 0.5}, (True, False)),
        ({8: math.nan}, (False, False)),
        ({8: -2000.0}, (False, False)),
        ({8: -HUGE}, (False, False)),
        ({8: None}, (False, False)),
        ({8: "x"}, (False, False)),
    ],
)
def test_logprobs(changes: dict[int, Any], expected: tuple[bool, bool]) -> None:
    claimed = [changes.get(at, -1.0) for at in range(40)]
    model = dict.fromkeys(POSITIONS, -1.0)
    assert verdicts(check_logprobs(claimed, 40, 32, POSITIONS, model)) == expected


def test_logprob_columns_and_lists_get_the_same_verdict() -> None:
    rng = np.random.default_rng(1)
    model = dict(zip(POSITIONS, rng.normal(-3, 1, 32).tolist(), strict=True))
    column = np.full(40, -3.0, np.float32)
    as_column = check_logprobs(column, 40, 32, POSITIONS, model)
    assert as_column == check_logprobs(column.tolist(), 40, 32, POSITIONS, model)


@given(numbers, numbers)
def test_any_rewards_get_a_verdict(claimed: Any, own: Any) -> None:
    found = check_reward(claimed, own)
    assert found.network_verdict or not found.windrow_verdict


def test_rewards_only_the_network_takes() -> None:
    assert verdicts(check_reward("0.5", 0.5)) == (True, False)
    assert verdicts(check_reward(math.inf, math.inf)) == (True, False)
    assert verdicts(check_success("true", evaluated=True)) == (True, False)


def test_probabilities_only_the_network_takes() -> None:
    assert verdicts(check_distribution([0.9] * 60)) == (True, True)
    assert verdicts(check_distribution([0.9] * 59 + [math.nan])) == (True, False)
    assert verdicts(check_distribution([0.9] * 59 + [1.5])) == (True, False)


def test_groups_only_the_network_takes() -> None:
    group = [0.5] * 16, [math.nan] + [0.0] * 15, [None] * 16
    assert verdicts(check_rollout_group(*group)) == (True, False)
    assert verdicts(check_rollout_group([0.5] * 16, [0.0] * 16, [None] * 15 + [1])) == (
        False,
        False,
    )


def test_sketches_only_the_network_takes() -> None:
    own, positions = np.array([10, 20]), np.array([0, 100])
    assert verdicts(check_sketches(own, np.array([2**31 - 2, 0]), positions)) == (True, True)
    assert verdicts(check_sketches(own, np.array([10**12, 0]), positions)) == (True, False)
    beyond = check_sketches(own, np.array([6011, 0]), positions)
    assert verdicts(beyond) == (False, False)
    assert (beyond.measured, beyond.threshold, beyond.margin) == (6001, 6000, -1)


@given(st.lists(st.integers(-HUGE, HUGE) | st.floats() | st.none(), max_size=40))
def test_any_tokens_get_a_verdict(tokens: list[Any]) -> None:
    valid = 0 < len(tokens) <= 30 and all(isinstance(t, int) and 0 <= t < 64 for t in tokens)
    assert check_tokens(tokens, 64, 30).network_verdict == valid


def test_verdicts_become_rows() -> None:
    place = Place(rollout_group=4, rollout_index=1, nonce=65, row=17)
    table = verdict_table(60, "5X", [(place, check_tokens([9] * 40, 8))])
    assert table.schema == VERDICT_SCHEMA
    row = table.to_pylist()[0]
    assert (row["row"], row["nonce"], row["severity"], row["network_verdict"]) == (
        17,
        65,
        "ban",
        False,
    )


def test_violations_become_verdicts() -> None:
    groups = pa.array([0, 0, 1], pa.int64())
    rollouts = pa.table(
        {
            "rollout_index": pa.array([0, 1, 0], pa.int32()),
            "nonce": pa.array([0, 1, 16], pa.int64()),
        }
    )
    found = Violations(groups)
    found.rollouts(np.array([False, False, True]), "nonce", Severity.STRICT, "wrong")
    found.of_groups(groups[:1], "size", Severity.BAN, "small", measured=2, threshold=16)
    strict, ban = violation_verdicts(found.table(), rollouts, window=30, hotkey="5X").to_pylist()
    assert (strict["nonce"], strict["network_verdict"], strict["windrow_verdict"]) == (
        16,
        True,
        False,
    )
    assert (ban["nonce"], ban["network_verdict"], ban["margin"]) == (None, False, -14)
