"""`windrow verify`: what the network and Windrow make of a window file, uploaded or not."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import pyarrow.compute as pc

from windrow import WindrowError
from windrow.assets.validation.reference import (
    claimed_randomness,
    seconds_for_all,
    validation_context,
)
from windrow.engine.validation.validator import FileVerdict, validate_file
from windrow.networks.grail.bucket import WINDOWS_PREFIX, parse_window_file_key
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.validation.detection import GroupFaults, chance_of_refusal
from windrow.networks.grail.validation.uploads import GZIP_SUFFIX
from windrow.networks.grail.validation.verdicts import SOFT_CHECKS
from windrow.networks.grail.window_file import WindowFile, WindowHeader, read_window_file
from windrow.networks.grail.window_guards import WindowFileError
from windrow.networks.grail.windows import parse_window
from windrow.pipelines.commands.window_sources import (
    CannotVerify,
    NotFetched,
    read_source,
    refuse_size,
)
from windrow.pipelines.live import window_resources
from windrow.resources.beacon import BeaconSource
from windrow.resources.calibrations import Calibrations
from windrow.resources.chain import Chain
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.configuration.settings import Settings
from windrow.resources.inference import Inference

_RANDOMNESS: Final = re.compile(r"(?:[0-9a-fA-F]{2}){1,64}")


class Fate(StrEnum):
    """What the network does with a file."""

    ACCEPTED = "accepted"
    BANNED = "banned"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Options:
    """What to look at, and against what.

    model: ask the model too. every_rollout: not only the network's sample. randomness: R_v as hex,
    hotkey, window: None for what the chain and the file say. Raises CannotVerify.
    """

    model: bool = True
    every_rollout: bool = False
    randomness: str | None = None
    hotkey: str | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        if self.randomness is not None and not _RANDOMNESS.fullmatch(self.randomness):
            raise CannotVerify("the randomness is no hexadecimal text of 2 to 128 digits")
        if self.window is not None and parse_window(str(self.window)) is None:
            raise CannotVerify(f"{self.window} is no window; windows are multiples of 30")


@dataclass(frozen=True)
class Judged:
    """A file's verdicts.

    size: bytes. sha256: hex, None where it was not read. network_reason: as far as the network
    gives one. problem: why no row was looked at, in words. randomness_from: given, chain or drawn.
    chance: probability over R_v that the network refuses it when it samples, None unless every
    rollout was checked.
    """

    location: str
    size: int
    sha256: str | None
    fate: Fate
    network_reason: str | None
    windrow_accepts: bool
    problem: str | None = None
    verdict: FileVerdict | None = None
    randomness_from: str | None = None
    chance: float | None = None

    @property
    def accepted(self) -> bool:
        return self.fate is Fate.ACCEPTED and self.windrow_accepts


@dataclass(frozen=True)
class Unjudged:
    """A file that nothing could be said of, and why."""

    location: str
    error: WindrowError


@dataclass(frozen=True)
class Verifier:
    """Holds files against what the chain and the trainer's bucket say.

    evaluation_seconds: to evaluate as many rollouts as the network samples. calibrations: limits
    of Windrow's own proof check; None for the defaults.
    """

    chain: Chain
    beacons: BeaconSource
    checkpoints: CheckpointCache
    inference: Inference
    options: Options
    evaluation_seconds: float
    calibrations: Calibrations | None = None

    @classmethod
    def embedded(cls, options: Options) -> Self:
        """Over the parts that the settings describe."""
        settings = Settings.read()
        parts = window_resources(settings)
        names = ("chain", "beacon_source", "checkpoints", "inference")
        return cls(
            *(parts[name] for name in names),
            options,
            settings.evaluation_seconds,
            Calibrations.of(settings),
        )

    def judge(self, location: str) -> Judged | Unjudged:
        """A window file at a path or an s3:// URL; one that is hostile ends as a verdict too."""
        try:
            return self._judge(location, read_source(location))
        except NotFetched as refused:
            reason, problem = refused.network_reason, str(refused)
            return Judged(location, refused.size, None, Fate.IGNORED, reason, False, problem)
        except WindrowError as error:
            return Unjudged(location, error)

    def _judge(self, location: str, content: bytes) -> Judged:
        size, sha256 = len(content), hashlib.sha256(content).hexdigest()
        refuse_size(size)
        try:
            file = read_window_file(content)
        except WindowFileError as error:
            reason = error.network_reason
            fate = Fate.UNKNOWN if error.limit else Fate.BANNED if reason else Fate.IGNORED
            said = f"file:{reason}" if reason else None
            return Judged(location, size, sha256, fate, said, False, problem=str(error))
        verdict, randomness_from = self._verdict(location, file)
        outcome = verdict.outcome
        if outcome:
            fate = Fate.ACCEPTED if verdict.network_accepts else Fate.BANNED
        else:
            fate = Fate.UNKNOWN if verdict.limit else Fate.IGNORED
        return Judged(
            location,
            size,
            sha256,
            fate,
            outcome.reason if outcome else None,
            verdict.windrow_accepts,
            problem=verdict.limit,
            verdict=verdict,
            randomness_from=randomness_from,
            chance=_chance(verdict, file) if self.options.every_rollout and outcome else None,
        )

    def _verdict(self, location: str, file: WindowFile) -> tuple[FileVerdict, str]:
        hotkey, window = self._whose(location, file.header)
        opened = self.beacons.beacon(window)
        drand_round, randomness, randomness_from = None, self.options.randomness, "given"
        if randomness is None and self.chain.block() >= window + WINDOW_BLOCKS:
            closed = self.beacons.beacon(window + WINDOW_BLOCKS)
            drand_round, randomness, randomness_from = (
                closed.drand_round,
                closed.randomness,
                "chain",
            )
        elif randomness is None:
            randomness, randomness_from = secrets.token_hex(32), "drawn"
        checkpoint = self.checkpoints.fetch(self.checkpoints.select(window))
        context = validation_context(
            hotkey,
            opened,
            checkpoint,
            self.inference.lexicon(checkpoint),
            miner_randomness=self.beacons.miners(opened, claimed_randomness(file)),
            randomness=randomness,
            drand_round=drand_round,
            every_rollout=self.options.every_rollout,
            calibration=self.calibrations.limits(checkpoint, self.inference).calibration
            if self.options.model and self.calibrations
            else None,
            evaluation_seconds=seconds_for_all(file.rows.num_rows, self.evaluation_seconds)
            if self.options.every_rollout
            else self.evaluation_seconds,
        )
        verdict = validate_file(
            file,
            context,
            environment=self.inference.environment(checkpoint),
            measure=self.inference.verifier(checkpoint).measure if self.options.model else None,
        )
        return verdict, randomness_from

    def _whose(self, location: str, header: WindowHeader) -> tuple[str, int]:
        """Hotkey and window: as asked for, as the name says, else as the file says of itself."""
        name = Path(location).name.removesuffix(GZIP_SUFFIX)
        named = parse_window_file_key(WINDOWS_PREFIX + name) or (None, None)
        hotkey = self.options.hotkey or named[0] or header.wallet
        window = self.options.window
        window = named[1] if window is None else window
        window = header.window_start if window is None else window
        if not hotkey:
            raise CannotVerify(f"{location} names no hotkey; give --hotkey")
        if window is None or parse_window(f"{window:d}"[:20]) is None:
            raise CannotVerify(
                f"{location} names no window (a multiple of 30) to hold it against; give --window"
            )
        return hotkey, window


def _chance(verdict: FileVerdict, file: WindowFile) -> float:
    """Over R_v, that the network refuses a file all of whose rollouts were checked."""
    refused = verdict.verdicts.filter(pc.invert(verdict.verdicts["network_verdict"]))
    if "file_structure" in refused["check"].to_pylist():
        return 1.0
    counts = refused.group_by(["rollout_group", "check"]).aggregate([([], "count_all")])
    by_group: dict[int, dict[str, int]] = {
        group: {} for group in file.rows["rollout_group"].unique().to_pylist()
    }
    for row in counts.to_pylist():
        by_group[row["rollout_group"]][row["check"]] = row["count_all"]
    return chance_of_refusal(
        [
            GroupFaults(
                fatal=not checks.keys() <= SOFT_CHECKS.keys(),
                soft=tuple(checks.get(name, 0) for name in SOFT_CHECKS),
            )
            for checks in by_group.values()
        ]
    )


def exit_status(reports: Sequence[Judged | Unjudged]) -> int:
    """0: all accepted by the network and by Windrow. 1: one is refused by either. 2: nothing could
    be said of one, or this machine failed at a check of it."""
    failed = [
        isinstance(report, Unjudged)
        or (report.accepted and report.verdict is not None and bool(report.verdict.faults))
        for report in reports
    ]
    if any(failed):
        return 2
    return int(any(isinstance(report, Judged) and not report.accepted for report in reports))
