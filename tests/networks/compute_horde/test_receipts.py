"""Receipts: which count, whatever else is on a page, and what they excuse."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bittensor_core import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.networks.compute_horde import busy, excuses
from windrow.networks.compute_horde.receipt_acceptance import (
    Terms,
    accept,
    amount,
    paid_jobs,
    problem,
)
from windrow.networks.compute_horde.receipt_pages import (
    MAX_LINE_BYTES,
    network_page,
    page_bytes,
    strict_page,
)
from windrow.networks.compute_horde.receipts import (
    Accepted,
    Finished,
    Payload,
    Receipt,
    Started,
    signed,
)

VALIDATOR = Keypair.create_from_uri("//Validator")
STRANGER = Keypair.create_from_uri("//Stranger")
MINER = Keypair.create_from_uri("//Miner")
OTHER_MINER = Keypair.create_from_uri("//OtherMiner")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = "7f4f14bd-bee7-497c-8b2b-992f4fc209ed"
OTHER_JOB = "ddbf1d11-a2dd-4fd4-a6bb-839d9f722425"
CLASS = "always_on.llm.a6000"


def common(**changes: Any) -> dict[str, Any]:
    return {
        "job_uuid": JOB,
        "miner_hotkey": MINER.ss58_address,
        "validator_hotkey": VALIDATOR.ss58_address,
        "timestamp": NOW - timedelta(seconds=60),
    } | changes


def started(**changes: Any) -> Started:
    return Started(**common(executor_class=CLASS, is_organic=True, ttl=7) | changes)


def accepted(**changes: Any) -> Accepted:
    at = NOW - timedelta(seconds=58)
    return Accepted(**common(timestamp=at, time_accepted=at, ttl=300) | changes)


def finished(**changes: Any) -> Finished:
    end = {"time_started": NOW - timedelta(seconds=60), "time_took_us": 30_000_000}
    return Finished(
        **common(timestamp=NOW, score_str="60.000000", block_numbers=[1, 2]) | end | changes
    )


def receipt(payload: Payload, validator: Keypair = VALIDATOR, miner: Keypair = MINER) -> Receipt:
    return signed(payload, validator.sign, miner.sign)


def terms(served_by: Keypair = MINER) -> Terms:
    return Terms({VALIDATOR.ss58_address}, served_by.ss58_address, NOW)


def seconds_of(receipts: Sequence[tuple[Receipt, Terms]]) -> list[Decimal]:
    return [job.seconds for job in paid_jobs(accept(receipts).receipts)]


def test_a_job_is_paid_what_both_sides_signed() -> None:
    pair = [(receipt(started()), terms()), (receipt(finished()), terms())]
    assert seconds_of(pair) == [Decimal(60)]
    assert seconds_of(pair + pair) == [Decimal(60)]
    assert seconds_of(pair[1:]) == []


@pytest.mark.parametrize(
    "score", ["nan", "inf", "-inf", "-1", "-100000", "1e3", "lots", "", "86400.000001", "٣", "1_0"]
)
def test_amounts_that_are_none_refuse_only_their_own_receipt(score: str) -> None:
    bad = finished(job_uuid=OTHER_JOB, score_str=score)
    rows = [receipt(bad), receipt(started()), receipt(finished())]
    taken = accept([(row, terms()) for row in rows])
    assert [place for place, _ in taken.refused] == [0]
    assert "amount" in taken.refused[0][1]
    assert [job.seconds for job in paid_jobs(taken.receipts)] == [Decimal(60)]


def test_a_fraction_is_an_amount() -> None:
    assert amount("0.5") == Decimal("0.5")
    assert amount("0.000000") == 0


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (started(job_uuid="hello"), "UUID"),
        (started(job_uuid=JOB.upper()), "UUID"),
        (started(ttl=-1), "life"),
        (started(ttl=10**30), "life"),
        (started(timestamp=datetime(2026, 1, 2)), "zone"),  # noqa: DTZ001
        (started(timestamp=NOW + timedelta(minutes=1)), "come"),
        (started(timestamp=NOW - timedelta(days=3)), "days"),
        (finished(time_started=NOW + timedelta(seconds=3)), "before"),
        (finished(time_took_us=-1), "took"),
        (finished(time_took_us=10**30), "took"),
        (finished(block_numbers=[1, 1]), "distinct"),
        (finished(block_numbers=[-1]), "number"),
        (finished(block_numbers=list(range(5000))), "blocks"),
    ],
)
def test_values_that_cannot_be_are_refused(payload: Payload, words: str) -> None:
    assert words in problem(receipt(payload), terms())


def test_only_known_validators_and_the_miner_that_serves_it_count() -> None:
    assert not problem(receipt(started()), terms())
    own = started(validator_hotkey=STRANGER.ss58_address)
    assert "no validator" in problem(receipt(own, STRANGER), terms())
    assert "serves" in problem(receipt(started()), terms(OTHER_MINER))
    assert "validator did not" in problem(receipt(started(), STRANGER), terms())
    assert "miner did not" in problem(receipt(started(), miner=STRANGER), terms())


def test_a_squatted_job_id_takes_nothing_from_the_job() -> None:
    squat = started(
        validator_hotkey=STRANGER.ss58_address,
        miner_hotkey=OTHER_MINER.ss58_address,
        executor_class="spin_up-4min.gpu-24gb",
    )
    known = Terms({VALIDATOR.ss58_address, STRANGER.ss58_address}, OTHER_MINER.ss58_address, NOW)
    rows = [
        (receipt(squat, STRANGER, OTHER_MINER), known),
        (receipt(started()), terms()),
        (receipt(finished()), terms()),
    ]
    jobs = paid_jobs(accept(rows).receipts)
    assert [(job.seconds, job.started.executor_class) for job in jobs] == [(Decimal(60), CLASS)]


def test_a_second_story_about_a_job_is_refused() -> None:
    rows = [started(), finished(), finished(score_str="600.000000")]
    taken = accept([(receipt(row), terms()) for row in rows])
    assert [job.seconds for job in paid_jobs(taken.receipts)] == [Decimal(60)]
    assert "before" in taken.refused[0][1]


def test_a_page_keeps_every_line_that_is_good() -> None:
    good = (receipt(started()), receipt(finished()))
    bad = [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"payload": 1}', b" " * (MAX_LINE_BYTES + 1)]
    bad.append(receipt(accepted(), STRANGER).line())
    first, second = page_bytes(good).splitlines()
    page = strict_page(b"\n".join([first, *bad, second]))
    assert page.receipts == good
    assert [number for number, _ in page.refused] == list(range(1, len(bad) + 1))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_no_line_loses_another(noise: bytes) -> None:
    good = receipt(started())
    page = strict_page(noise.replace(b"\n", b"") + b"\n" + good.line())
    assert page.receipts[-1:] == (good,)
    if b"\n" not in noise:
        network_page(good.line() + b"\n")


def declined(**changes: Any) -> excuses.Declined:
    values = {
        "job_uuid": OTHER_JOB,
        "executor_class": CLASS,
        "miner": MINER.ss58_address,
        "synthetic": True,
        "at": NOW - timedelta(seconds=55),
    }
    return excuses.Declined(**values | changes)


def excusers(own: Keypair = STRANGER) -> excuses.Excusers:
    return excuses.Excusers({VALIDATOR.ss58_address: 30_000.0}, 30_000.0, own.ss58_address)


def test_a_busy_miner_is_excused_to_the_end_of_its_job() -> None:
    rows = [receipt(started()), receipt(accepted())]
    assert excuses.network_excuses(rows, declined(), excusers()) == [0]
    assert excuses.strict_excuses(rows, declined(), excusers(), ()) == [0]
    later = declined(at=NOW)
    assert excuses.network_excuses(rows, later, excusers()) == []
    assert excuses.strict_excuses(rows, later, excusers(), ()) == [1]
    assert excuses.strict_excuses(rows[1:], later, excusers(), ()) == []
    ended = declined(at=NOW + timedelta(seconds=400))
    assert excuses.strict_excuses(rows, ended, excusers(), ()) == []


def test_excuses_that_the_network_takes_and_we_do_not() -> None:
    unsigned = receipt(started(), miner=STRANGER)
    not_a_uuid = receipt(started(job_uuid="hello"))
    endless = receipt(started(ttl=10**9))
    for row in (unsigned, not_a_uuid, endless):
        assert excuses.network_excuses([row], declined(), excusers()) == [0]
        assert excuses.strict_excuses([row], declined(), excusers(), ()) == []
    own = receipt(started(), VALIDATOR)
    assert excuses.strict_excuses([own], declined(), excusers(VALIDATOR), ()) == []
    issued = {(JOB, own.payload.text())}
    assert excuses.strict_excuses([own], declined(), excusers(VALIDATOR), issued) == [0]


def test_the_newest_manifest_says_how_many_executors_there_are() -> None:
    assert excuses.network_organic_excused("busy", 1, [1, 5])
    assert not excuses.strict_organic_excused("busy", 1, [1, 5])
    assert excuses.strict_organic_excused("busy", 5, [1, 5])
    assert not excuses.strict_organic_excused("busy", 0, [0])
    assert not excuses.strict_organic_excused("unknown", 5, [5])


def test_busy_counts_belong_to_validator_and_miner() -> None:
    squat = finished(validator_hotkey=STRANGER.ss58_address)
    rows = [started(ttl=120), squat]
    assert busy.network_busy_executors(rows, CLASS, NOW) == {}
    assert busy.busy_executors(rows, CLASS, NOW) == {MINER.ss58_address: 1}
    endless = [started(ttl=10**30), started(job_uuid=OTHER_JOB, timestamp=datetime(2026, 1, 1))]  # noqa: DTZ001
    assert busy.busy_executors(endless, CLASS, NOW) == {MINER.ss58_address: 1}
