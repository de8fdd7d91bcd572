"""The catalogue of cheats against attestation: each is refused, but for those that docs name."""

import pytest

from benchmarks import attestation as cost
from benchmarks.soundness import fleet_attestation
from benchmarks.soundness.fleet_attestation import Row
from windrow.engine.fleet.attestation_plan import Plan

NOT_REFUSED = {
    "GPU shared, and no history of the card known": "accepted",
    "relays to an equal card, 50 ms away": "accepted",
    "several cards work as one, four times as fast": "to be looked at",
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return fleet_attestation.rows()


def test_the_same_node_without_a_cheat_passes() -> None:
    assert fleet_attestation.honest().sound


def test_cheats_are_refused_but_for_those_that_docs_name(rows: list[Row]) -> None:
    assert len({row.name for row in rows}) == len(rows)
    outcomes = {row.name: row.windrow_outcome for row in rows}
    assert {name: got for name, got in outcomes.items() if got != "refused"} == NOT_REFUSED
    assert all(row.reason for row in rows)


def test_the_network_would_take_a_smaller_card_at_its_word(rows: list[Row]) -> None:
    outcomes = {row.name: row.network_outcome for row in rows}
    assert outcomes["an L40S says it is an H200"].startswith("accepted")
    assert outcomes["GPU shared: 1.6 times the time"] == "accepted"


def test_the_benchmark_measures_both_sides() -> None:
    produced, verified = cost.measure(Plan(n=512, matrices=5, steps=10))
    assert produced > 0
    assert verified > 0
