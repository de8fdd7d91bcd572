"""How many executors of a class each miner has at work, from receipts (§6.5)."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime

from windrow.networks.compute_horde.receipts import Accepted, Finished, Payload, Started

Match = tuple[str, ...]


def network_busy_executors(
    payloads: Iterable[Payload], executor_class: str, at: datetime
) -> dict[str, int]:
    """The network's count by miner; receipts belong together that name the same job."""
    return _busy(payloads, executor_class, at, lambda payload: (payload.job_uuid,))


def busy_executors(
    payloads: Iterable[Payload], executor_class: str, at: datetime
) -> dict[str, int]:
    """The same; receipts belong together that name the same validator, miner and job (§14.3)."""
    return _busy(payloads, executor_class, at, lambda payload: payload.key)


def age(payload: Payload, at: datetime) -> float:
    """Seconds since a receipt was made; infinite if only one of the two times names its zone."""
    if (payload.timestamp.tzinfo is None) != (at.tzinfo is None):
        return math.inf
    return (at - payload.timestamp).total_seconds()


def _holds(payload: Started | Accepted, at: datetime) -> bool:
    """Both ends included."""
    return 0 <= age(payload, at) <= payload.ttl


def _busy(
    payloads: Iterable[Payload],
    executor_class: str,
    at: datetime,
    match: Callable[[Payload], Match],
) -> dict[str, int]:
    kept = list(payloads)
    ended = {match(one) for one in kept if isinstance(one, Finished) and age(one, at) >= 0}
    started = {
        match(one): one
        for one in kept
        if isinstance(one, Started) and one.executor_class == executor_class
    }
    accepted = {match(one): one for one in kept if isinstance(one, Accepted)}
    count: Counter[str] = Counter()
    for job, start in started.items():
        if job in ended:
            continue
        taken = accepted.get(job)
        if _holds(start, at):
            count[start.miner_hotkey] += 1
        elif taken is not None and _holds(taken, at):
            count[taken.miner_hotkey] += 1
    return dict(count)
