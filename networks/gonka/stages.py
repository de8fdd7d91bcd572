"""Which block of an epoch starts what (§8)."""

from dataclasses import asdict, dataclass
from typing import Final, Literal

from windrow import WindrowError

Phase = Literal[
    "Inference", "PoCGenerate", "PoCGenerateWindDown", "PoCValidate", "PoCValidateWindDown"
]


class NoSuchEpoch(WindrowError):
    """A height that belongs to no epoch that follows the one in force."""


@dataclass(frozen=True)
class EpochParams:
    """Lengths in blocks, by the chain's names. Defaults: mainnet's at genesis."""

    epoch_length: int = 17280
    epoch_shift: int = 16980
    poc_stage_duration: int = 60
    poc_exchange_duration: int = 5
    poc_validation_delay: int = 5
    poc_validation_duration: int = 20
    set_new_validators_delay: int = 120
    inference_validation_cutoff: int = 80


MAINNET: Final = EpochParams()


@dataclass(frozen=True)
class Window:
    """First and last block, inclusive."""

    start: int
    end: int

    def __contains__(self, height: int) -> bool:
        return self.start <= height <= self.end


@dataclass(frozen=True)
class Stages:
    """Heights of one epoch. Epoch 0 has no proof of compute: its stages are all 0."""

    epoch_index: int
    poc_start: int
    poc_generation_wind_down: int
    poc_generation_end: int
    poc_validation_start: int
    poc_validation_wind_down: int
    poc_validation_end: int
    set_new_validators: int
    claim_money: int
    inference_validation_cutoff: int
    next_poc_start: int
    poc_exchange_window: Window
    poc_validation_exchange_window: Window

    def to_dict(self) -> dict[str, object]:
        """By the API's names."""
        return asdict(self)

    def phase(self, height: int) -> Phase:
        """What nodes do at a height; every stage begins at its height and ends before the next."""
        if self.epoch_index == 0 or not self.poc_start <= height < self.poc_validation_end:
            return "Inference"
        if height < self.poc_generation_wind_down:
            return "PoCGenerate"
        if height < self.poc_validation_start:
            return "PoCGenerateWindDown"
        return "PoCValidate" if height < self.poc_validation_wind_down else "PoCValidateWindDown"

    def exchange_open(self, height: int) -> bool:
        """Whether the chain takes batches."""
        return self.epoch_index > 0 and height in self.poc_exchange_window

    def validation_exchange_open(self, height: int) -> bool:
        """Whether the chain takes validations."""
        return self.epoch_index > 0 and height in self.poc_validation_exchange_window

    def due(self, height: int) -> dict[str, bool]:
        """What happens at exactly this height, by the chain's names."""
        at = {
            "is_end_of_poc": self.poc_generation_end,
            "is_start_of_validation": self.poc_validation_start,
            "is_end_of_validation": self.poc_validation_end,
            "is_set_new_validators": self.set_new_validators,
            "is_claim_money": self.claim_money,
        }
        due = {name: self.epoch_index > 0 and height == value for name, value in at.items()}
        return due | {"is_start_of_poc": height == self.poc_start}


def poc_start(epoch: int, params: EpochParams = MAINNET) -> int:
    """Where the proof of an epoch starts, if the parameters never changed."""
    return max(0, params.epoch_length * epoch - params.epoch_shift) if epoch else 0


def stages(epoch: int, start: int, params: EpochParams = MAINNET) -> Stages:
    """The stages of an epoch whose proof starts at a height."""
    if epoch == 0:
        following = params.epoch_length - params.epoch_shift
        cutoff = following - params.inference_validation_cutoff
        none = Window(0, 0)
        return Stages(0, 0, 0, 0, 0, 0, 0, 0, 0, cutoff, following, none, none)
    duration, validation = params.poc_stage_duration, params.poc_validation_duration
    validation_start = start + duration + params.poc_validation_delay
    validation_end = validation_start + validation
    new_validators = validation_end + params.set_new_validators_delay
    return Stages(
        epoch,
        start,
        start + duration * 8 // 10,
        start + duration,
        validation_start,
        validation_start + validation * 8 // 10,
        validation_end,
        new_validators,
        new_validators + 1,
        start + params.epoch_length - params.inference_validation_cutoff,
        start + params.epoch_length,
        Window(start + 1, start + duration + params.poc_exchange_duration),
        Window(validation_start + 1, validation_end),
    )


def following(epoch: Stages, params: EpochParams = MAINNET) -> Stages:
    """The epoch after this one."""
    return stages(epoch.epoch_index + 1, epoch.next_poc_start, params)


def current(effective: Stages, height: int, params: EpochParams = MAINNET) -> Stages:
    """The epoch a height is in, given the one whose validators are in force (§8.4).

    The height at which an epoch's validators are set counts to the epoch after it, as on the chain.
    Raises NoSuchEpoch, where the chain's own code panics.
    """
    if effective.set_new_validators < height < effective.next_poc_start:
        return effective
    after = following(effective, params)
    if height <= after.set_new_validators:
        return after
    raise NoSuchEpoch(
        f"height {height} is past epoch {after.epoch_index}, but epoch {effective.epoch_index} is "
        "said to be in force: ask the chain again"
    )
