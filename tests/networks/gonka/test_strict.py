"""The strict verifier closes what the network's check leaves open."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.networks.gonka.poc_batches import network_fraud_test, smallest_flagged
from windrow.networks.gonka.poc_capacity import dense_partition
from windrow.networks.gonka.strict import (
    Batch,
    StrictRules,
    Verdict,
    judge,
    read_claims,
    sample,
    verified,
)

RULES = StrictRules(r_target=1.4, stage_height=300, window=(301, 365))
RANDOMNESS = b"\x01" * 32


def truth(nonce: int) -> float:
    return 1.3 + (nonce % 97) / 1000


def batch(nonces: Sequence[int], name: str = "a", **changes: object) -> Batch:
    values: dict[str, object] = {
        "batch_id": name,
        "stage_height": 300,
        "received_height": 310,
        "nonces": list(nonces),
        "distances": [truth(nonce) for nonce in nonces],
    }
    return Batch(**(values | changes))  # type: ignore[arg-type]


def outcome(batches: Sequence[Batch], rules: StrictRules = RULES) -> Verdict:
    return verified(batches, rules, RANDOMNESS, lambda nonces: [truth(n) for n in nonces])


def codes(verdict: Verdict) -> dict[str, int]:
    return {finding.code: finding.count for finding in verdict.findings}


def test_honest_batches_count_once_each() -> None:
    verdict = outcome([batch(range(150)), batch(range(150, 400), "b")])
    assert (verdict.accepted, verdict.weight, verdict.sampled) == (True, 400, 200)
    assert (verdict.mismatched, verdict.findings, verdict.reasons) == ((), (), ())


def test_duplicates_within_and_over_batches_count_once() -> None:
    verdict = outcome([batch([1, 1, 2, 3]), batch([3, 4], "b")])
    assert verdict.weight == 4
    assert codes(verdict) == {"DUPLICATE_NONCES": 2}


def test_of_contradicting_claims_the_earlier_block_s_counts() -> None:
    late = batch([5], "a", received_height=320, distances=[0.1])
    claims = read_claims([late, batch([5], "b")], RULES)
    assert claims.distances == {5: truth(5)}
    assert [finding.code for finding in claims.findings] == ["CONTRADICTED_NONCES"]


@settings(max_examples=30, deadline=None)
@given(st.permutations([batch(range(i, 400, 7), f"b{i}") for i in range(5)]), st.randoms())
def test_order_of_batches_and_nonces_changes_nothing(batches: list[Batch], random: object) -> None:
    def turned(one: Batch) -> Batch:
        rows = list(zip(one.nonces, one.distances, strict=True))
        random.shuffle(rows)  # type: ignore[attr-defined]
        nonces, distances = zip(*rows, strict=True)
        return replace(one, nonces=nonces, distances=distances)

    ordered = [batch(range(i, 400, 7), f"b{i}") for i in range(5)]
    first, second = read_claims(ordered, RULES), read_claims([turned(b) for b in batches], RULES)
    assert first == second
    assert sample(first, RANDOMNESS, RULES) == sample(second, RANDOMNESS, RULES)


def test_the_sample_follows_what_nobody_knew_before() -> None:
    claims = read_claims([batch(range(1000))], RULES)
    ours = sample(claims, RANDOMNESS, RULES)
    assert len(set(ours)) == 200
    assert ours == sorted(ours)
    assert sample(claims, b"\x02" * 32, RULES) != ours


def test_one_in_a_hundred_is_sampled_of_many() -> None:
    claims = read_claims([batch(range(30_000))], RULES)
    assert len(sample(claims, RANDOMNESS, RULES)) == 300


def test_a_claim_at_the_target_falls_alone() -> None:
    high = batch([1, 2, 3, 4], distances=[truth(1), truth(2), 1.4, truth(4)])
    verdict = outcome([high])
    assert (verdict.accepted, verdict.weight) == (True, 3)
    assert codes(verdict) == {"ABOVE_TARGET": 1}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nonces": [1, -2]}, "MALFORMED_BATCH"),
        ({"nonces": [1, True]}, "MALFORMED_BATCH"),
        ({"nonces": [1, 2**63]}, "MALFORMED_BATCH"),
        ({"nonces": [1, "2"]}, "MALFORMED_BATCH"),
        ({"nonces": "12"}, "MALFORMED_BATCH"),
        ({"nonces": [], "distances": []}, "MALFORMED_BATCH"),
        ({"distances": [1.3]}, "MALFORMED_BATCH"),
        ({"distances": [1.3, math.nan]}, "MALFORMED_BATCH"),
        ({"distances": [1.3, math.inf]}, "MALFORMED_BATCH"),
        ({"distances": [1.3, -0.1]}, "MALFORMED_BATCH"),
        ({"distances": [1.3, None]}, "MALFORMED_BATCH"),
        ({"batch_id": ""}, "MALFORMED_BATCH"),
        ({"stage_height": 299}, "WRONG_STAGE"),
        ({"received_height": 300}, "OUTSIDE_WINDOW"),
        ({"received_height": 366}, "OUTSIDE_WINDOW"),
    ],
)
def test_a_bad_batch_is_left_out_and_named(changes: dict[str, object], code: str) -> None:
    bad = replace(batch([1, 2], "bad"), **changes)  # type: ignore[arg-type]
    verdict = outcome([bad, batch([7, 8, 9], "good")])
    assert (verdict.accepted, verdict.weight) == (True, 3)
    assert codes(verdict) == {code: 1}


def test_more_nonces_than_are_read_are_left_out() -> None:
    rules = replace(RULES, most_nonces=5)
    assert outcome([batch(range(4)), batch(range(4, 8), "b")], rules).weight == 4


def test_nothing_claimed_is_not_accepted() -> None:
    assert not outcome([]).accepted
    assert not outcome([batch([1], distances=[math.nan])]).accepted


def test_every_distance_received_is_compared() -> None:
    nonces = list(range(200))
    lied = [truth(n) - 0.01 for n in nonces]
    assert not network_fraud_test([truth(n) for n in nonces], lied, 1.4).fraud
    verdict = outcome([batch(nonces, distances=lied)])
    assert (verdict.accepted, verdict.weight, len(verdict.mismatched)) == (False, 0, 200)


@pytest.mark.parametrize("false", [2, 4])
def test_few_false_nonces_are_seen(false: int) -> None:
    least = smallest_flagged(200)
    assert least is not None
    assert false < least
    claims = read_claims([batch(range(200))], RULES)
    again = {n: truth(n) + (0.3 if n < false else 0) for n in range(200)}
    assert judge(claims, again, RULES).mismatched == tuple(range(false))
    assert not judge(claims, again, RULES).accepted
    again = {n: truth(n) + (0.3 if n < 1 else 0) for n in range(200)}
    assert judge(claims, again, RULES).accepted


@pytest.mark.parametrize("count", [1, 2])
def test_of_few_samples_none_may_be_false(count: int) -> None:
    assert smallest_flagged(count) is None
    claims = read_claims([batch(range(count))], RULES)
    assert judge(claims, {n: truth(n) for n in range(count)}, RULES).accepted
    again = {n: truth(n) + (0.3 if n == 0 else 0) for n in range(count)}
    assert not judge(claims, again, RULES).accepted


def test_nan_is_no_proof() -> None:
    again = [math.nan] * 10
    assert not network_fraud_test(again, [1.3] * 10, 1.4).fraud
    verdict = judge(read_claims([batch(range(10))], RULES), dict(enumerate(again)), RULES)
    assert (verdict.accepted, len(verdict.mismatched)) == (False, 10)


def test_nothing_recomputed_is_no_verdict_of_honesty() -> None:
    assert not judge(read_claims([batch(range(10))], RULES), {}, RULES).accepted


def test_a_rate_beyond_the_hardware_is_refused() -> None:
    claims = read_claims([batch(range(10))], RULES)
    again = {n: truth(n) for n in range(10)}
    assert judge(claims, again, RULES, passes_per_second=90, most_per_second=100).accepted
    for rate in (101.0, math.nan):
        verdict = judge(claims, again, RULES, passes_per_second=rate, most_per_second=100)
        assert not verdict.accepted


def test_nonces_of_another_share_do_not_count() -> None:
    rules = replace(RULES, partitions=[dense_partition(1, 4, 0, 2), dense_partition(1, 4, 1, 2)])
    verdict = outcome([batch(range(40))], rules)
    assert verdict.weight == 10
    assert codes(verdict) == {"FOREIGN_NONCES": 30}
