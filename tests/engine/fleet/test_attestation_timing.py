"""Times of an attestation: bounds from the claimed card, and from history."""

import pytest

from windrow.engine.fleet.attestation_plan import plan_for
from windrow.engine.fleet.attestation_timing import (
    PEAKS,
    residency_verdict,
    timing_verdict,
)
from windrow.networks.chutes.gpus import CARDS

PLAN = plan_for(141 * 10**9)
H200 = PEAKS["h200"]
GOOD = (4.0, 4.1, 3.9, 4.05, 3.95)


def test_the_table_speaks_of_cards_there_are() -> None:
    assert PEAKS.keys() <= CARDS.keys()


@pytest.mark.parametrize(("seconds", "verdict"), [(0.5, None), (2.6, True), (4, True), (30, False)])
def test_bounds_of_a_card(seconds: float, verdict: bool | None) -> None:
    found = timing_verdict(PLAN, seconds, peak=H200)
    assert found.verdict is verdict
    assert bool(found.reason) == (verdict is not True)
    assert found.least is not None
    assert found.most is not None
    assert 2 < found.least < found.most < 10


@pytest.mark.parametrize(("seconds", "verdict"), [(3.3, None), (3.5, True), (5, True), (6, False)])
def test_history_takes_the_place_of_the_table(seconds: float, verdict: bool | None) -> None:
    assert timing_verdict(PLAN, seconds, peak=H200, history=GOOD).verdict is verdict
    assert timing_verdict(PLAN, seconds, peak=None, history=GOOD).verdict is verdict


def test_history_that_scatters_is_given_room() -> None:
    scattered = (3.0, 4.0, 5.0, 6.0, 2.0)
    assert timing_verdict(PLAN, 8.0, peak=None, history=scattered).verdict is True


def test_little_history_is_none() -> None:
    assert timing_verdict(PLAN, 3.3, peak=H200, history=GOOD[:4]).verdict is True
    found = timing_verdict(PLAN, 3.3, peak=None, history=GOOD[:4])
    assert (found.verdict, found.least, found.most) == (None, None, None)


@pytest.mark.parametrize(
    ("seconds", "committed", "round_trip", "verdict"),
    [
        (0.08, 3.0, 0.1, True),
        (0.5, 3.0, 0.1, False),
        (0.5, 3.0, 1.0, True),
        (2.5, 3.0, 1.0, False),
        (0.5, 3.0, 2.0, None),
    ],
)
def test_residency_must_come_sooner_than_work(
    seconds: float, committed: float, round_trip: float, verdict: bool | None
) -> None:
    found = residency_verdict(
        PLAN, seconds, committed, peak=H200, recomputed=False, round_trip=round_trip
    )
    assert found.verdict is verdict
    assert bool(found.reason) == (verdict is not True)


def test_residency_without_a_table_goes_by_the_work_itself() -> None:
    def verdict(seconds: float) -> bool | None:
        found = residency_verdict(PLAN, seconds, 40.0, peak=None, recomputed=False, round_trip=0.1)
        return found.verdict

    assert (verdict(5.0), verdict(20.0)) == (True, False)


def test_a_node_that_keeps_nothing_is_not_judged() -> None:
    found = residency_verdict(PLAN, 3.0, 3.0, peak=H200, recomputed=True)
    assert found.verdict is None
    assert "keeps nothing" in found.reason
