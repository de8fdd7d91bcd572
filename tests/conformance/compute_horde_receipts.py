"""ComputeHorde: receipts signed, paged, counted, refused; excuses."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from pydantic import TypeAdapter

from windrow.networks.compute_horde import busy, excuses, receipts
from windrow.networks.compute_horde.receipt_acceptance import Terms, accept, paid_jobs
from windrow.networks.compute_horde.receipt_pages import (
    PageLost,
    network_page,
    page_at,
    page_plan,
    strict_page,
)
from windrow.networks.compute_horde.signing import MalformedSignature

from .framework import Case, VectorFile, each, handles

Row = dict[str, Any]
REFUSED = "exception:"
TIME: TypeAdapter[datetime] = TypeAdapter(datetime)


def time(text: str) -> datetime:
    return TIME.validate_python(text)


def refused(out: object) -> bool:
    return isinstance(out, str) and out.startswith(REFUSED)


def check_blob(read: Callable[[str], Any], given: Row, out: Row) -> None:
    text = json.dumps(given["payload"])
    if refused(out["blob"]):
        with pytest.raises(receipts.InvalidReceipt):
            read(text)
    else:
        made = read(text).text()
        assert made == out["blob"]
        if "blob_sha256" in out:
            assert hashlib.sha256(made.encode()).hexdigest() == out["blob_sha256"]


@handles("compute-horde/receipt_blobs.json")
def receipt_blobs(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(check_blob, receipts.read_payload))


@handles("compute-horde/receipt_blobs_seed_era.json")
def receipt_blobs_seed_era(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(check_blob, receipts.read_seed_payload))


@handles("compute-horde/receipt_signatures.json")
def receipt_signatures(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        receipt = receipts.read_receipt(json.dumps(given))
        assert receipt.by_validator() == out["validator_ok"]
        if refused(out["miner_ok"]):
            with pytest.raises(MalformedSignature):
                receipt.network_by_miner()
            assert not receipt.by_miner()
        else:
            assert receipt.network_by_miner() == receipt.by_miner() == out["miner_ok"]

    return each(file, check)


@handles("compute-horde/miner_receipt_check.json")
def miner_receipt_check(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        arguments = (
            receipts.read_payload(json.dumps(given["payload"])),
            given["validator_signature"],
            given["miner_own_hotkey"],
            given["url_validator_hotkey"],
        )
        if refused(out["accept"]):
            with pytest.raises(MalformedSignature):
                receipts.network_miner_signs(*arguments)
            assert not receipts.miner_signs(*arguments)
        else:
            assert receipts.network_miner_signs(*arguments) == out["accept"]
            assert receipts.miner_signs(*arguments) == out["accept"]

    return each(file, check)


@handles("compute-horde/receipt_paging.json")
def receipt_paging(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        plan = page_plan(time(given["now"]))
        assert page_at(time(given["now"])) == out["page"]
        assert list(plan.active) == out["active_pages_newest_first"] == out["first_catchup"]
        assert plan.oldest == out["catchup_oldest_page"]
        assert len(plan.earlier) == out["then_catchup_count"]
        assert plan.archived == out["archive_pages_up_to"]

    return each(file, check)


@handles("compute-horde/receipt_page_parse.json")
def receipt_page_parse(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Any) -> None:
        content = given["jsonl"].encode()
        strict = strict_page(content)
        assert len(strict.receipts) + len(strict.refused) == len(given["jsonl"].splitlines())
        if refused(out):
            with pytest.raises(PageLost):
                network_page(content)
            assert strict.refused
            return
        page = network_page(content)
        assert [receipt.payload.job_uuid for receipt in page.receipts] == out["accepted"]
        assert [reason for _, reason in page.refused] == out["line_errors"]
        assert strict.receipts == page.receipts

    return each(file, check)


@handles("compute-horde/busy_executors.json")
def busy_executors(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        payloads = [receipts.read_payload(json.dumps(one)) for one in given["receipts"]]
        arguments = (payloads, given["executor_class"], time(given["at"]))
        assert busy.network_busy_executors(*arguments) == out["busy"]
        assert busy.busy_executors(*arguments) == out["busy"]

    return each(file, check)


@handles("compute-horde/excuse_filter.json")
def excuse_filter(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        attached = [receipts.read_receipt(json.dumps(one)) for one in given["receipts"]]
        declined = excuses.Declined(
            given["declined_job_uuid"],
            given["declined_job_executor_class"],
            given["miner_hotkey"],
            given["declined_job_is_synthetic"],
            time(given["check_time"]),
        )
        stakes = {one["hotkey"]: one["effective_stake"] for one in given["active_validators"]}
        excusers = excuses.Excusers(stakes, given["minimum_stake"], given["own_validator_hotkey"])
        valid = excuses.network_excuses(attached, declined, excusers)
        assert valid == out["valid_receipt_indexes"]
        assert len(valid) == out["count"]

    return each(file, check)


@handles("compute-horde/excuse_rule_synthetic.json")
def excuse_rule_synthetic(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        excused = excuses.synthetic_excused(
            given["reason"],
            given["accepted_jobs_same_class"],
            given["valid_receipts"],
            given["executors_of_class"],
        )
        assert excused == out["excused"]
        assert (given["excused_score"] if excused else 0) == out["score"]

    return each(file, check)


@handles("compute-horde/hostile_receipts.json")
def hostile_receipts(file: VectorFile) -> Iterator[Case]:
    """What is required of receipts; shares and weights are made of them elsewhere.

    Who holds allowance is known to validate; every page is served by the miner it is about.
    """
    return each(file, check_hostile)


def check_hostile(given: Row, out: Row) -> None:
    known = {one["validator"] for one in given["allowances"]}
    lines = [json.dumps(one).encode() for one in given["receipts"]]
    page = strict_page(b"\n".join(lines))
    assert page.refused == ()
    now = max(receipt.payload.timestamp for receipt in page.receipts)
    served = [(one, Terms(known, one.payload.miner_hotkey, now)) for one in page.receipts]
    taken = accept(served)
    honest = [one.payload for one in page.receipts if one.payload.validator_hotkey in known]
    assert list(taken.receipts) == honest
    assert len(taken.refused) == len(lines) - len(honest)

    paid: dict[str, Decimal] = {}
    for job in paid_jobs(taken.receipts):
        miner = job.started.miner_hotkey
        paid[miner] = paid.get(miner, Decimal(0)) + job.seconds
    asked = [one for one in honest if isinstance(one, receipts.Finished)]
    assert sum(paid.values()) == sum(Decimal(one.score_str) for one in asked)
    # The network's own sums are right wherever no hostile receipt took part in them.
    reference = out["reference"].get("paid_executor_seconds", {}).values()
    for miner, seconds in ((m, s) for sums in reference for m, s in sums.items()):
        assert seconds < 0 or miner not in paid or float(paid[miner]) >= seconds

    # One page holds all of them when somebody serves what is not theirs: only the server's count.
    server = page.receipts[0].payload.miner_hotkey
    alone = accept([(one, Terms(known, server, now)) for one in page.receipts])
    assert all(one.miner_hotkey == server for one in alone.receipts)
