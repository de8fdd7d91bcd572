"""Advantages, sampling, sketches, budget and buckets beyond what vectors cover."""

import json
import math
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow.networks.grail import sketch
from windrow.networks.grail.advantages import check_group, group_advantages
from windrow.networks.grail.bucket import (
    BucketCommitment,
    MalformedBucket,
    parse_window_file_key,
    window_file_key,
)
from windrow.networks.grail.budget import TimeBudget
from windrow.networks.grail.constants import SKETCH_MODULUS
from windrow.networks.grail.sampling import completion_digests, sampled_rows, selected_miners

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
GROUP = st.lists(st.floats(-100, 100), min_size=16, max_size=16)


@given(GROUP)
def test_own_advantages_always_pass(rewards: list[float]) -> None:
    check = check_group(rewards, group_advantages(rewards).tolist())
    assert check.windrow_verdict
    assert check.largest_error == 0.0


@given(st.lists(FLOATS, max_size=20), st.lists(FLOATS, max_size=20))
def test_any_claim_gets_a_verdict(rewards: list[float], claimed: list[float]) -> None:
    check = check_group(rewards, claimed)
    assert check.network_verdict or not check.windrow_verdict
    if check.windrow_verdict:
        assert all(map(math.isfinite, rewards + claimed))


def test_a_nan_advantage_passes_the_network_only() -> None:
    rewards = [float(i) for i in range(16)]
    check = check_group(rewards, [math.nan] * 16)
    assert check.network_verdict
    assert not check.windrow_verdict


@given(
    st.integers(0, SKETCH_MODULUS - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 40_000),
)
def test_every_int64_claim_gets_the_verdict_of_exact_integers(
    own: int, claimed: int, position: int
) -> None:
    apart = abs(own - claimed)
    accepted = min(apart, SKETCH_MODULUS - apart) <= int(6000 + 5 * math.sqrt(position))
    claims = np.array([claimed], np.int64)
    verdict = sketch.within_tolerance(np.array([own]), claims, np.array([position]))
    assert verdict.tolist() == [accepted]
    assert sketch.in_range(claims).tolist() == [0 <= claimed < SKETCH_MODULUS]


@pytest.mark.parametrize(("claimed", "accepted"), [(math.nan, False), (math.inf, True)])
def test_a_claim_that_is_no_number_is_never_in_range(claimed: float, accepted: bool) -> None:
    claims = np.array([claimed])
    verdict = sketch.within_tolerance(np.array([26]), claims, np.array([0]))
    assert verdict.tolist() == [accepted]  # as the network: only comparisons decide
    assert sketch.in_range(claims).tolist() == [False]


ROWS = st.lists(
    st.tuples(
        st.none() | st.lists(st.none() | st.integers(-5, 2**31 - 1), max_size=6),
        st.none() | st.integers(-8, 8),
    ),
    max_size=6,
)


@given(ROWS)
def test_completion_digests_slice_as_python_does(
    rows: list[tuple[list[int | None] | None, int | None]],
) -> None:
    expected = [
        sha256(json.dumps(tokens[prompt or 0 :], separators=(",", ":")).encode()).hexdigest()
        if tokens
        else None
        for tokens, prompt in rows
    ]
    tokens = pa.array([row[0] for row in rows], pa.list_(pa.int32()))
    prompts = pa.array([row[1] for row in rows], pa.int32())
    assert completion_digests(tokens, prompts) == expected
    if rows:  # a slice of a longer column, whose offsets do not start at zero
        assert completion_digests(tokens[1:], prompts[1:]) == expected[1:]


def test_few_rows_are_checked_whole_without_a_digest() -> None:
    def digest(row: int) -> bytes:
        raise AssertionError(f"row {row} needs no digest")

    assert sampled_rows(np.zeros(20, np.int64), digest, "5F", "ab").tolist() == list(range(20))
    assert sampled_rows(np.zeros(0, np.int64), digest, "5F", "ab").tolist() == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=21, max_size=200))
def test_sampled_groups_are_whole_and_few(groups: list[int]) -> None:
    rows = sampled_rows(np.array(groups, np.int64), lambda row: bytes([row]), "5F", "ab")
    chosen = {groups[row] for row in rows.tolist()}
    assert 1 <= len(chosen) <= 4
    assert rows.tolist() == [row for row, group in enumerate(groups) if group in chosen]


def test_a_lone_miner_is_selected() -> None:
    assert selected_miners(["a"], "0xab", {}) == ["a"]
    assert selected_miners([], "0xab", {}) == []


@given(st.lists(st.tuples(st.integers(0, 2**40), st.floats(0, 1e12)), max_size=6), FLOATS)
def test_blocks_needed_stays_inside_a_window(
    blocks: list[tuple[int, float]], seconds: float
) -> None:
    budget = TimeBudget().observe_group(seconds).observe_upload(seconds)
    for block, unix_time in blocks:
        budget = budget.observe_block(block, unix_time)
    assert 1 <= budget.blocks_needed() <= 29
    assert not budget.has_time(0, 29)


def test_a_bucket_commitment_reads_back_and_keeps_its_secret() -> None:
    bucket = BucketCommitment("acc0", "key id", "s3cret")
    assert len(bucket.encode()) == 128
    assert BucketCommitment.decode(bucket.encode()) == bucket
    assert "s3cret" not in repr(bucket)
    assert "key id" not in repr(bucket)
    assert bucket.endpoint == "https://acc0.r2.cloudflarestorage.com"


def test_a_bucket_commitment_is_stripped_then_cut() -> None:
    text = BucketCommitment(" a" * 40, "k\n", "s" * 70).encode()
    assert len(text) == 128
    assert BucketCommitment.decode(text).secret_access_key == "s" * 64


@pytest.mark.parametrize("text", ["", "x" * 127, " " * 32 + "x" * 96, "x" * 64 + " " * 64])
def test_other_bucket_texts_are_named(text: str) -> None:
    with pytest.raises(MalformedBucket):
        BucketCommitment.decode(text)


@pytest.mark.parametrize("account", ["evil.com/#", "a@b", "a:80", "é", "a b", "-a", "a\n", ""])
def test_an_account_that_would_move_the_host_has_no_endpoint(account: str) -> None:
    with pytest.raises(MalformedBucket, match="host label"):
        _ = BucketCommitment(account, "k", "s").endpoint


def test_window_file_keys_read_back() -> None:
    key = window_file_key("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", 61260)
    assert key.startswith("grail/windows/5Grw")
    assert parse_window_file_key(key) == ("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", 61260)


@pytest.mark.parametrize("window", ["61261", "061260", "x", ""])
def test_other_keys_name_no_window_file(window: str) -> None:
    assert parse_window_file_key(f"grail/windows/5F-window-{window}.parquet") is None


@pytest.mark.parametrize("hotkey", ["", "../x", "5F/5F", "5F\n", "0OIl"])
def test_a_hotkey_that_could_leave_its_folder_has_no_key(hotkey: str) -> None:
    with pytest.raises(MalformedBucket):
        window_file_key(hotkey, 30)
