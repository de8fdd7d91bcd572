"""Which receipts count, and the jobs they pay: what the network leaves open is closed (§14).

The network takes receipts from whoever signs them, finds them by the job's id alone, and stops at
one it cannot store. Here each is looked at on its own, and belongs to its validator, miner and job.
"""

import re
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from windrow.networks.compute_horde.receipts import Accepted, Finished, Payload, Receipt, Started

MAX_AMOUNT: Final = Decimal(86_400)
"""Executor-seconds one job can be worth: a day."""
MAX_BLOCKS: Final = 2166
MAX_AGE: Final = timedelta(days=2)
MAX_AHEAD: Final = timedelta(seconds=5)
MAX_TTL_SECONDS: Final = 86_400

_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Terms:
    """What a receipt is held against.

    validators: hotkeys that are known to validate. served_by: hotkey of the miner whose page it
    is from. now: with its zone.
    """

    validators: Collection[str]
    served_by: str
    now: datetime


def problem(receipt: Receipt, terms: Terms) -> str:
    """Why a receipt does not count, in words; empty if it does."""
    payload = receipt.payload
    if not is_uuid(payload.job_uuid):
        return f"job {payload.job_uuid[:60]!r} is no UUID"
    if payload.validator_hotkey not in terms.validators:
        return f"{payload.validator_hotkey[:60]} is no validator that is known"
    if payload.miner_hotkey != terms.served_by:
        return f"it is {payload.miner_hotkey[:60]}'s, not of the miner that serves it"
    return (
        _time_problem(payload, terms.now)
        or _value_problem(payload)
        or ("" if receipt.by_validator() else "its validator did not sign it")
        or ("" if receipt.by_miner() else "its miner did not sign it")
    )


def is_uuid(text: str) -> bool:
    """Whether a job's id is a UUID as all write it: lower case, with hyphens."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def amount(score: str) -> Decimal | None:
    """Executor-seconds a finished receipt asks for, or None where it is no such number.

    Finite, not negative, at most MAX_AMOUNT, at most six decimals; a fraction counts as one.
    """
    if not _AMOUNT.fullmatch(score):
        return None
    value = Decimal(score)
    return value if value <= MAX_AMOUNT else None


def _time_problem(payload: Payload, now: datetime) -> str:
    times = [payload.timestamp]
    if isinstance(payload, Accepted):
        times.append(payload.time_accepted)
    elif isinstance(payload, Finished):
        times.append(payload.time_started)
    for time in times:
        if time.tzinfo is None:
            return f"its time {time.isoformat()} names no zone"
        if time - now > MAX_AHEAD:
            return f"its time {time.isoformat()} has yet to come"
        if now - time > MAX_AGE:
            return f"its time {time.isoformat()} is more than two days ago"
        if time > payload.timestamp:
            return "it was signed before what it tells of"
    return ""


def _value_problem(payload: Payload) -> str:
    if not isinstance(payload, Finished):
        fits = 0 <= payload.ttl <= MAX_TTL_SECONDS
        return "" if fits else f"a life of {str(payload.ttl)[:20]} s"
    if amount(payload.score_str) is None:
        return f"{payload.score_str[:40]!r} is no amount of executor-seconds up to {MAX_AMOUNT}"
    if not 0 <= payload.time_took_us <= MAX_AMOUNT * 1_000_000:
        return f"it took {str(payload.time_took_us)[:40]} us"
    blocks = payload.block_numbers
    if len(blocks) > MAX_BLOCKS or len(set(blocks)) < len(blocks):
        return f"{len(blocks)} blocks pay it, {len(set(blocks))} of them distinct"
    if blocks and not 0 <= min(blocks) <= max(blocks) < 1 << 62:
        return "blocks without a number that any block has"
    return ""


@dataclass(frozen=True)
class PaidJob:
    """A job that asks to be paid: both receipts of one validator, miner and job."""

    started: Started
    finished: Finished

    @property
    def seconds(self) -> Decimal:
        """Executor-seconds it asks for."""
        return amount(self.finished.score_str) or Decimal(0)


@dataclass(frozen=True)
class Accepting:
    """receipts: that count, once each. refused: each other one's place, and why."""

    receipts: tuple[Payload, ...]
    refused: tuple[tuple[int, str], ...]


def accept(receipts: Iterable[tuple[Receipt, Terms]]) -> Accepting:
    """Those of many pages that count; each is judged by itself.

    A second receipt of one kind about one job counts only if it says the same.
    """
    kept: dict[tuple[Key, str], Payload] = {}
    refused = []
    for place, (receipt, terms) in enumerate(receipts):
        payload = receipt.payload
        reason = problem(receipt, terms)
        if not reason:
            first = kept.setdefault((payload.key, payload.receipt_type), payload)
            if first.text() == payload.text():
                continue
            reason = "its validator and miner signed another one about the same job before"
        refused.append((place, reason))
    return Accepting(tuple(kept.values()), tuple(refused))


def paid_jobs(payloads: Iterable[Payload]) -> list[PaidJob]:
    """Jobs of users that ended, in the order they did; of receipts that count."""
    kept = list(payloads)
    started = {one.key: one for one in kept if isinstance(one, Started) and one.is_organic}
    jobs = [
        PaidJob(started[one.key], one)
        for one in kept
        if isinstance(one, Finished) and one.key in started
    ]
    return sorted(jobs, key=lambda job: (job.finished.timestamp, job.finished.key))
