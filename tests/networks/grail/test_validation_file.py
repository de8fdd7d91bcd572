"""A whole file's outcome, its suspicious patterns, and copies between miners."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow.networks.grail.columns import RolloutColumns
from windrow.networks.grail.validation.copies import (
    Interval,
    MinerCompletions,
    digest_array,
    observe,
    shared_completions,
)
from windrow.networks.grail.validation.outcome import Admission, CheckedRollout, judge_file
from windrow.networks.grail.validation.strict import (
    check_duplicates,
    check_group_numbers,
    check_successes,
)
from windrow.networks.grail.validation.uploads import (
    ObjectHead,
    UploadState,
    decide_upload,
    timestamp_seconds,
)
from windrow.networks.grail.validation.verdicts import HARD_CHECKS, SOFT_CHECKS
from windrow.networks.grail.violations import Violations
from windrow.networks.grail.window_schema import FLAT_SCHEMA

PASSED = dict.fromkeys((*HARD_CHECKS, *SOFT_CHECKS), True)


def rollouts(count: int = 16) -> list[CheckedRollout]:
    return [
        CheckedRollout(row // 16, Admission.ADMITTED, PASSED, row % 2 == 0, f"d{row}", 0.5, 0.0)
        for row in range(count)
    ]


def test_a_clean_file_is_extrapolated() -> None:
    outcome = judge_file(rollouts(), 320)
    assert outcome.metrics.estimated_unique == 320
    assert outcome.metrics.estimated_successful == 160
    assert (outcome.reason, outcome.pipelines) == (None, 16)


@pytest.mark.parametrize(
    ("admission", "bad_signatures"), [(Admission.BAD_SIGNATURE, 1), (Admission.WRONG_CHECKPOINT, 0)]
)
def test_a_row_that_is_not_admitted_ends_the_file(
    admission: Admission, bad_signatures: int
) -> None:
    sampled = rollouts()
    sampled[3] = replace(sampled[3], admission=admission)
    outcome = judge_file(sampled, 320)
    assert (outcome.metrics.checked, outcome.metrics.had_failure) == (4, 1)
    assert (outcome.reason, outcome.pipelines, outcome.bad_signatures) == (None, 3, bad_signatures)


def test_the_first_hard_failure_ends_the_file() -> None:
    sampled = rollouts()
    sampled[5] = replace(sampled[5], checks={"schema_valid": True, "tokens_valid": False})
    outcome = judge_file(sampled, 16)
    assert (outcome.reason, outcome.hard_failures) == ("hard:tokens_valid", 1)
    assert outcome.metrics.checked == 6


def test_a_row_with_an_error_is_skipped_and_breaks_its_group() -> None:
    sampled = rollouts()
    sampled[5] = replace(sampled[5], admission=Admission.ERROR)
    outcome = judge_file(sampled, 16)
    assert (outcome.errors, outcome.reason, outcome.metrics.had_failure) == (1, None, 1)


def test_an_empty_file_earns_nothing_and_fails_nothing() -> None:
    metrics = judge_file([], 0).metrics
    assert (metrics.estimated_unique, metrics.had_failure) == (0, 0)


def strict_checks(found: Violations) -> list[str]:
    return found.table().column("check").to_pylist()


@pytest.mark.parametrize(
    ("groups", "suspicious"),
    [
        ([0, 0, 1, 2], False),
        ([1, 3], False),  # two problems of four were dropped
        ([0, 2**63 - 1], True),
        ([-(2**63)], True),
        ([7], True),
        ([], False),
        ([None], False),
    ],
)
def test_group_numbers(groups: list[int | None], suspicious: bool) -> None:
    column = pa.array(groups, pa.int64())
    found = Violations(column)
    check_group_numbers(column, found)
    assert strict_checks(found) == ["group_numbers"] * suspicious


def claimed(rows: list[tuple[int, list[int], float]]) -> pa.Table:
    """Rollouts of (group, prompt, log-prob of the completion), all with one completion."""
    empty = FLAT_SCHEMA.empty_table()
    columns = {
        "rollout_group": [group for group, _, _ in rows],
        "tokens": [[*prompt, 7, 8] for _, prompt, _ in rows],
        "token_logprobs": [[0.0] * len(prompt) + [logprob, 0.0] for _, prompt, logprob in rows],
        "prompt_length": [len(prompt) for _, prompt, _ in rows],
        "completion_length": [2] * len(rows),
    }
    for name in empty.column_names:
        columns.setdefault(name, [None] * len(rows))
    return pa.table(columns).select(empty.column_names).cast(FLAT_SCHEMA)


def test_a_completion_of_another_group_is_a_duplicate_unless_chance_explains_it() -> None:
    rollouts = claimed(
        [
            (0, [1], -40.0),
            (0, [1], -40.0),
            (1, [1], -40.0),  # improbable
            (2, [1], -3.0),  # probable
            (3, [1], float("nan")),
        ]
    )
    columns = RolloutColumns.of(rollouts)
    found = Violations(columns.column("rollout_group"))
    check_duplicates(columns, pa.array(["a"] * 5), found)
    assert found.table().column("row").to_pylist() == [2, 4]
    nothing = Violations(columns.column("rollout_group"))
    check_duplicates(columns, pa.nulls(5, pa.string()), nothing)
    assert not nothing.table().num_rows


def test_a_claimed_success_must_be_the_evaluated_one() -> None:
    found = Violations(pa.array([0, 0], pa.int64()))
    check_successes(pa.array([True, None]), np.array([True, False]), found)
    assert found.table().column("row").to_pylist() == [1]


files = st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=5)


@given(files)
def test_shared_completions_are_those_of_counters(contents: list[list[int]]) -> None:
    columns = [digest_array(f"{digest:064x}" for digest in file) for file in contents]
    shared = shared_completions(columns)
    for a, mine in enumerate(contents):
        for b, theirs in enumerate(contents):
            both = Counter(mine) & Counter(theirs)
            assert shared[a, b] == (0 if a == b else both.total())


def test_digests_that_differ_in_the_last_bit_are_not_shared() -> None:
    columns = [digest_array([f"{digest:064x}", None]) for digest in (0, 1)]
    assert shared_completions(columns).tolist() == [[0, 0], [0, 0]]


def submission(first: int, count: int, uploaded: float | None) -> MinerCompletions:
    digests = digest_array(f"{digest:064x}" for digest in range(first, first + count))
    return MinerCompletions(digests, count, uploaded)


def test_a_copier_that_uploads_early_later_is_still_the_copier() -> None:
    """The network goes by the latest upload times and turns on the victim."""
    first = {"victim": submission(0, 100, 10.0), "copier": submission(50, 100, 20.0)}
    interval, report = observe(Interval(0), 0, first)
    assert report.network_copiers == report.windrow_copiers == {"copier"}
    second = {"victim": submission(1000, 100, 40.0), "copier": submission(2000, 100, 30.0)}
    _, report = observe(interval, 30, second)
    assert report.network_copiers == {"victim"}
    assert report.windrow_copiers == {"copier"}


def test_nobody_submits() -> None:
    interval, report = observe(Interval(0), 0, {})
    assert (report.window, report.interval, interval.totals) == ((), (), {})


def test_uploads_on_hostile_values() -> None:
    for value in (True, "1", None, float("nan"), float("inf")):
        assert timestamp_seconds(value) is None
    heads = {"k.gz": ObjectHead(10**9, None), "k": ObjectHead(300, 1.0)}
    assert decide_upload("k", heads, 5.0).state is UploadState.BAD_SIZE
    assert decide_upload("k.gz", {"k": heads["k"]}, 5.0).key == "k"
