"""Rules on how completions were drawn, against samplers that keep to the policy and do not."""

from itertools import product

import numpy as np
import pytest

from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.validation.drawing import (
    check_nucleus,
    check_repeats,
    least_kept,
    log_probability,
    repeat_evidence,
)

POLICY = GenerationPolicy(
    max_new_tokens=64, temperature=1.0, top_p=0.95, top_k=20, repetition_penalty=1.0
)


@pytest.mark.parametrize(
    ("better", "mass", "kept"),
    [(0, 0.0, True), (19, 0.9, True), (20, 0.9, False), (3, 0.955, True), (3, 0.99, False)],
)
def test_a_token_beyond_top_k_or_top_p_is_refused_where_that_is_clear(
    better: int, mass: float, kept: bool
) -> None:
    found = check_nucleus(better, mass, POLICY)
    assert found.windrow_verdict == kept
    assert found.network_verdict


def test_a_policy_without_limits_leaves_no_token_out() -> None:
    everything = GenerationPolicy(64, 1.0, top_p=1.0, top_k=None, repetition_penalty=1.0)
    assert check_nucleus(50_000, 0.9999, everything).windrow_verdict


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
def test_a_token_that_is_likely_enough_is_never_refused(top_k: int | None, top_p: float) -> None:
    policy = GenerationPolicy(64, 1.0, top_p, top_k, 1.0)
    enough = max(least_kept(policy), 1e-9)
    others = round(1.0 / enough) - 1  # so many others can be as likely at most
    assert check_nucleus(others, 1.0 - enough - 1e-9, policy).windrow_verdict


def evidence_of(drawn: list[int], probabilities: np.ndarray) -> float:
    return repeat_evidence([b"%d" % d for d in drawn], np.log(probabilities[drawn]).tolist())


def test_the_odds_of_an_honest_group_are_one_in_the_mean() -> None:
    """Every group of three over all ways to draw it, weighted by how likely it is."""
    probabilities = np.array([0.7, 0.2, 0.06, 0.04])
    mean = sum(
        probabilities[list(drawn)].prod() * np.exp(evidence_of(list(drawn), probabilities))
        for drawn in product(range(4), repeat=3)
    )
    assert mean == pytest.approx(1.0)


def test_honest_groups_are_hardly_ever_refused() -> None:
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(3000):
        probabilities = rng.dirichlet(np.full(8, rng.choice([0.05, 0.5, 5.0])))
        drawn = rng.choice(8, 16, p=probabilities).tolist()
        refused += not check_repeats(evidence_of(drawn, probabilities)).windrow_verdict
    assert refused <= 8  # at most one in a thousand, 3 of them, with room for chance


def test_copies_are_refused_unless_the_model_is_certain() -> None:
    copies = [0] * 16
    assert not check_repeats(evidence_of(copies, np.array([0.5, 0.5]))).windrow_verdict
    assert not check_repeats(evidence_of([0, 1] * 8, np.full(100, 0.01))).windrow_verdict
    assert check_repeats(evidence_of(copies, np.array([0.9, 0.1]))).windrow_verdict
    assert check_repeats(evidence_of(list(range(16)), np.full(16, 1 / 16))).windrow_verdict


def test_a_completion_counts_as_likely_as_drift_can_make_it() -> None:
    drawn = np.log([0.5, 1.0, 0.9])
    assert log_probability(drawn, 0.0) == pytest.approx(np.log(0.45))
    assert log_probability(drawn, 0.1) == pytest.approx(np.log(0.45) + 0.2 * (0.5 + 0.1))
    assert log_probability(drawn, 100.0) == 0.0
