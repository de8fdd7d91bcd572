"""Proper rejection: receipts that show a miner was busy when it declined a job (§7)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from windrow.networks.compute_horde.busy import age
from windrow.networks.compute_horde.classes import EXECUTOR_LIFE_SECONDS
from windrow.networks.compute_horde.receipt_acceptance import is_uuid
from windrow.networks.compute_horde.receipts import Accepted, Receipt, Started

MINIMUM_STAKE: Final = 30_000.0
EXCUSED_SCORE: Final = 1.0
LEEWAY_SECONDS: Final = 2
BUSY: Final = "busy"


@dataclass(frozen=True)
class Declined:
    """A job that a miner declined. at: time of the job's own started receipt."""

    job_uuid: str
    executor_class: str
    miner: str
    synthetic: bool
    at: datetime


@dataclass(frozen=True)
class Excusers:
    """Validators whose jobs excuse a miner.

    stakes: effective stake of each active validator. own: the one that checks. foundation: one
    that counts whatever its stake.
    """

    stakes: Mapping[str, float]
    minimum: float
    own: str
    foundation: str | None = None

    def allow(self, hotkey: str) -> bool:
        """Whether a validator's receipt excuses."""
        return (
            self.stakes.get(hotkey, 0.0) >= self.minimum
            or hotkey == self.own
            or hotkey == self.foundation
        )


def network_excuses(
    receipts: Sequence[Receipt], declined: Declined, excusers: Excusers
) -> list[int]:
    """Places of the receipts that count by the network's rules; a job counts once.

    The miner's own signature is not looked at.
    """
    valid: list[int] = []
    seen: set[str] = set()
    for place, receipt in enumerate(receipts):
        payload = receipt.payload
        if (
            isinstance(payload, Started)
            and _is_about(payload, declined)
            and payload.job_uuid not in seen
            and excusers.allow(payload.validator_hotkey)
            and _holds(payload, declined.at)
            and receipt.by_validator()
        ):
            seen.add(payload.job_uuid)
            valid.append(place)
    return valid


def strict_excuses(
    receipts: Sequence[Receipt],
    declined: Declined,
    excusers: Excusers,
    issued: Collection[tuple[str, str]],
) -> list[int]:
    """Places of the receipts that show another executor at work.

    Both sides must have signed. An accepted receipt counts as well, if the started one of its
    validator and job came before it in the list, so that a long job excuses to its end. Receipts
    of the validator that checks count only if it `issued` them: (job, text of what it signed).
    """
    valid: list[int] = []
    begun: set[tuple[str, str, str]] = set()
    seen: set[tuple[str, str, str]] = set()
    for place, receipt in enumerate(receipts):
        payload = receipt.payload
        if not (
            is_uuid(payload.job_uuid)
            and excusers.allow(payload.validator_hotkey)
            and receipt.by_validator()
            and receipt.by_miner()
            and (
                payload.validator_hotkey != excusers.own
                or (payload.job_uuid, payload.text()) in issued
            )
        ):
            continue
        if isinstance(payload, Started) and _is_about(payload, declined):
            begun.add(payload.key)
        elif not (isinstance(payload, Accepted) and payload.key in begun):
            continue
        if (
            0 <= payload.ttl <= EXECUTOR_LIFE_SECONDS
            and _holds(payload, declined.at)
            and payload.key not in seen
        ):
            seen.add(payload.key)
            valid.append(place)
    return valid


def _is_about(payload: Started, declined: Declined) -> bool:
    return (
        (payload.is_organic or not declined.synthetic)
        and payload.miner_hotkey == declined.miner
        and payload.job_uuid != declined.job_uuid
        and payload.executor_class == declined.executor_class
    )


def _holds(payload: Started | Accepted, at: datetime) -> bool:
    return 0 < age(payload, at) < payload.ttl + LEEWAY_SECONDS


def synthetic_excused(reason: str, accepted: int, excuses: int, executors: int) -> bool:
    """Whether declining a synthetic job costs nothing.

    accepted: jobs of the class that the miner took in the batch. executors: it has of the class.
    """
    return reason == BUSY and accepted + excuses >= executors


def network_organic_excused(reason: str, excuses: int, manifests: Sequence[int]) -> bool:
    """The same for a user's job; manifests: executors of the class, oldest first.

    The network looks at the oldest manifest (§14.7).
    """
    return bool(manifests) and reason == BUSY and excuses >= manifests[0]


def strict_organic_excused(reason: str, excuses: int, manifests: Sequence[int]) -> bool:
    """The same by the newest manifest; a miner without executors has nothing to be busy with."""
    return bool(manifests) and reason == BUSY and excuses >= manifests[-1] > 0
