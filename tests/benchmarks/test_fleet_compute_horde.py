"""The catalogue of cheats against ComputeHorde: each is refused, but for those it names."""

import pytest

from benchmarks.soundness import fleet_compute_horde
from benchmarks.soundness.fleet_compute_horde import Row

NOT_REFUSED = {
    "a known validator pays its own miner for nothing": "accepted",
    "all messages of a job in one burst": "0.000000 s paid",
    "a job done within 30 ms of its start": "0.030000 s paid",
    "done before its volumes were ready": "0.000000 s paid",
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return fleet_compute_horde.rows()


def test_the_same_node_without_a_cheat_passes() -> None:
    assert fleet_compute_horde.honest()[1:3] == ("accepted", "accepted")


def test_cheats_are_refused_but_for_those_it_names(rows: list[Row]) -> None:
    assert len({row.name for row in rows}) == len(rows)
    outcomes = {row.name: row.windrow_outcome for row in rows}
    assert {name: got for name, got in outcomes.items() if got != "refused"} == NOT_REFUSED
    assert all(row.reason for row in rows)


def test_the_network_takes_most_of_them(rows: list[Row]) -> None:
    outcomes = {row.name: row.network_outcome for row in rows}
    for name in (
        "only the sampled prompt answered, the others invented",
        "replayed answers",
        "self-signed receipts",
        "negative amount",
        "NaN for an amount",
        "squatted job id: another's job, another class",
        "a login signed for tomorrow",
    ):
        assert outcomes[name] == "accepted"
    assert outcomes["all messages of a job in one burst"] == "50.000000 s paid"
    assert outcomes["a line that stops the reader"].startswith("refused, and 1 honest")
