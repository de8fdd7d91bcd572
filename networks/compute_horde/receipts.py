"""Receipts: what they hold, the text that is signed, who signed it (§6.1, §6.2)."""

import json
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from windrow import WindrowError
from windrow.networks.compute_horde.classes import ClassName
from windrow.networks.compute_horde.signing import Sign, network_signed_by, signed_by, written


class InvalidReceipt(WindrowError):
    """Bytes that are no receipt."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Common(_Model):
    job_uuid: str
    miner_hotkey: str
    validator_hotkey: str
    timestamp: datetime

    def text(self) -> str:
        """What is signed, rebuilt from the values: equal instants give equal texts (§6.2)."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @property
    def key(self) -> tuple[str, str, str]:
        """Validator, miner and job: what a receipt is about. The network takes the job alone."""
        return self.validator_hotkey, self.miner_hotkey, self.job_uuid


class Started(_Common):
    """A job was sent to a miner. ttl: seconds within which it must answer."""

    receipt_type: Literal["JobStartedReceipt"] = "JobStartedReceipt"
    executor_class: ClassName
    is_organic: bool
    ttl: int


class Accepted(_Common):
    """A miner has taken a job. ttl: seconds it may be busy with it."""

    receipt_type: Literal["JobAcceptedReceipt"] = "JobAcceptedReceipt"
    time_accepted: datetime
    ttl: int


class Finished(_Common):
    """A job ended. score_str: executor-seconds it pays, "0.000000" if it failed.

    block_numbers: blocks whose allowance pays for it. time_took_us: microseconds.
    """

    receipt_type: Literal["JobFinishedReceipt"] = "JobFinishedReceipt"
    time_started: datetime
    time_took_us: int
    score_str: str
    block_numbers: list[int] = []


class SeedStarted(Started):
    """As in December 2024."""

    max_timeout: int


class SeedFinished(_Common):
    """As in December 2024: the score is a job's, and no blocks pay."""

    receipt_type: Literal["JobFinishedReceipt"] = "JobFinishedReceipt"
    time_started: datetime
    time_took_us: int
    score_str: str


Parsed = TypeVar("Parsed")

Payload = Started | Accepted | Finished
SeedPayload = SeedStarted | Accepted | SeedFinished
AnyPayload = Annotated[Payload, Field(discriminator="receipt_type")]

_PAYLOAD: TypeAdapter[Payload] = TypeAdapter(AnyPayload)
_SEED_PAYLOAD: TypeAdapter[SeedPayload] = TypeAdapter(
    Annotated[SeedPayload, Field(discriminator="receipt_type")]
)


def read_payload(text: str | bytes) -> Payload:
    """A receipt's payload from JSON. Raises InvalidReceipt."""
    return _read(_PAYLOAD, text)


def read_seed_payload(text: str | bytes) -> SeedPayload:
    """The same as in December 2024. Raises InvalidReceipt."""
    return _read(_SEED_PAYLOAD, text)


class Receipt(_Model):
    """A payload that both sides signed."""

    payload: AnyPayload
    validator_signature: str
    miner_signature: str

    def by_validator(self) -> bool:
        """Whether the validator it names signed it."""
        payload = self.payload
        return signed_by(payload.validator_hotkey, payload.text(), self.validator_signature)

    def by_miner(self) -> bool:
        """Whether the miner it names signed it."""
        payload = self.payload
        return signed_by(payload.miner_hotkey, payload.text(), self.miner_signature)

    def network_by_miner(self) -> bool:
        """The same; raises MalformedSignature where the network is stopped by it (§14.9)."""
        payload = self.payload
        return network_signed_by(payload.miner_hotkey, payload.text(), self.miner_signature)

    def line(self) -> bytes:
        """As a page holds it, without the newline."""
        return self.model_dump_json().encode()


_RECEIPT: TypeAdapter[Receipt] = TypeAdapter(Receipt)


def read_receipt(line: str | bytes) -> Receipt:
    """A receipt from a line of a page. Raises InvalidReceipt."""
    return _read(_RECEIPT, line)


def signed(payload: Payload, by_validator: Sign, by_miner: Sign) -> Receipt:
    """A complete receipt: the validator signs first, the miner the same text (§6.2)."""
    text = payload.text().encode()
    return Receipt(
        payload=payload,
        validator_signature=written(by_validator(text)),
        miner_signature=written(by_miner(text)),
    )


def network_miner_signs(
    payload: Payload, validator_signature: str, own_hotkey: str, connected_hotkey: str
) -> bool:
    """Whether a miner adds its signature to what a validator sent (§6.2).

    connected_hotkey: of the connection's address. Raises MalformedSignature, as the network does.
    """
    return (
        payload.miner_hotkey == own_hotkey
        and payload.validator_hotkey == connected_hotkey
        and network_signed_by(payload.validator_hotkey, payload.text(), validator_signature)
    )


def miner_signs(
    payload: Payload, validator_signature: str, own_hotkey: str, connected_hotkey: str
) -> bool:
    """The same; a signature that cannot be read is none."""
    return (
        payload.miner_hotkey == own_hotkey
        and payload.validator_hotkey == connected_hotkey
        and signed_by(payload.validator_hotkey, payload.text(), validator_signature)
    )


def _read(adapter: TypeAdapter[Parsed], text: str | bytes) -> Parsed:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidReceipt(f"no receipt: {where}: {first['msg']}"[:300]) from None
