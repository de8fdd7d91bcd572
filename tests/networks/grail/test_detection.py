"""The chance of refusal, against every sample there is."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow.networks.grail.sampling import group_sample_size
from windrow.networks.grail.validation.detection import GroupFaults, chance_of_refusal
from windrow.networks.grail.validation.gates import Gates
from windrow.networks.grail.validation.verdicts import HARD_CHECKS

HONEST = GroupFaults(fatal=False, soft=(0, 0))
FATAL = GroupFaults(fatal=True, soft=(0, 0))
PASSED = dict.fromkeys(HARD_CHECKS, True)


def refused(sample: tuple[GroupFaults, ...]) -> bool:
    """What the network's gates make of these groups, rollout by rollout."""
    gates = Gates(16 * len(sample))
    for group in sample:
        for rollout in range(16):
            rewards, distribution = (rollout >= failing for failing in group.soft)
            checks = {"reward_valid": rewards, "token_distribution_valid": distribution}
            gates = gates.after(PASSED | checks) if gates.open else gates
    return not gates.open or any(group.fatal for group in sample)


groups_of_a_file = st.lists(
    st.builds(
        GroupFaults,
        fatal=st.sampled_from([False, False, False, True]),
        soft=st.tuples(st.sampled_from([0, 0, 2, 4, 7]), st.sampled_from([0, 0, 9, 16])),
    ),
    min_size=2,
    max_size=24,
)


@given(groups_of_a_file)
def test_it_is_the_share_of_samples_that_the_gates_refuse(groups: list[GroupFaults]) -> None:
    samples = list(combinations(groups, group_sample_size(len(groups))))
    expected = sum(map(refused, samples)) / len(samples)
    assert chance_of_refusal(groups) == pytest.approx(expected, abs=1e-12)


def test_one_bad_group_in_forty_is_met_by_one_sample_in_ten() -> None:
    assert chance_of_refusal([FATAL, *[HONEST] * 39]) == pytest.approx(4 / 40)


def test_a_small_file_is_looked_at_whole() -> None:
    assert chance_of_refusal([FATAL]) == 1.0
    assert chance_of_refusal([HONEST]) == 0.0
    assert chance_of_refusal([]) == 0.0


def test_soft_failures_add_up_over_the_groups_drawn() -> None:
    # 13 of 64 rewards close the gate: 4 in each of the four groups drawn are 16, 3 are 12.
    assert chance_of_refusal([GroupFaults(fatal=False, soft=(4, 0))] * 40) == 1.0
    assert chance_of_refusal([GroupFaults(fatal=False, soft=(3, 0))] * 40) == 0.0
