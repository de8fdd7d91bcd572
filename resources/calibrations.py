"""Limits of Windrow's own proof check, measured once a checkpoint and kept as small JSON files."""

import json
import logging
import math
import re
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from windrow import WindrowError
from windrow.engine.validation.proof_scores import (
    LOGPROB_SCORES,
    SKETCH_SCORES,
    Calibration,
    calibration_for,
)
from windrow.resources.checkpoints.cache import VerifiedCheckpoint
from windrow.resources.configuration.settings import Settings
from windrow.resources.files import published
from windrow.resources.inference import Inference
from windrow.resources.locks import file_lock

if TYPE_CHECKING:  # torch is imported where a model is used
    from windrow.resources.models.loading import LoadedCheckpoint

SCHEMA_VERSION: Final = 1
"""To be raised when `calibrate` measures something else under the same names."""

MOST_BYTES: Final = 64 * 1024

_log = logging.getLogger(__name__)


class DamagedCalibration(WindrowError):
    """A file of limits holds something else."""


@dataclass(frozen=True)
class Limits:
    """What honest proofs of a checkpoint are held to.

    seconds: what measuring took, now or when it was done; 0 for a default. made: in this call.
    """

    calibration: Calibration
    seconds: float
    made: bool


@dataclass(frozen=True)
class Calibrations:
    """One file for each checkpoint, number format, kind of device and attention kernel.

    root: folder of the files. wanted: False leaves every checkpoint at the default limits.
    """

    root: Path
    wanted: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """In the home folder these settings name."""
        return cls(settings.home / "calibrations", settings.calibration)

    def limits(self, checkpoint: VerifiedCheckpoint, inference: Inference) -> Limits:
        """The checkpoint's limits: kept ones, or measured now with its model on the proof device.

        Where they cannot be measured the default of the number format is used, and the source of
        the limits, which every verdict is stored with, says why. Raises NoCalibration for a format
        without a default, and as `load_checkpoint`.
        """
        loaded = inference.proof_model(checkpoint)
        dtype = str(loaded.dtype).removeprefix("torch.")
        default = calibration_for(dtype, None)
        if not self.wanted:
            return _default(default, "WINDROW_CALIBRATION=no")
        key = {
            "weights_hash": checkpoint.weights_hash,
            "dtype": dtype,
            "device": _device_kind(loaded),
            "attention": loaded.attention,
        }
        names = [re.sub(r"[^A-Za-z0-9_]+", "_", part) for part in key.values()]
        path = self.root / names[0] / ("-".join(names[1:]) + ".json")
        try:
            with file_lock(path.with_suffix(".lock")):  # measured once, whoever else needs it
                return self._kept(path, key, default) or self._measured(
                    path, key, loaded, checkpoint, inference
                )
        except WindrowError as error:
            _log.warning("No limits were measured for checkpoint %s: %s", names[0], error)
            return _default(default, f"{type(error).__name__}: {error!s:.300}")

    def _kept(self, path: Path, key: dict[str, str], default: Calibration) -> Limits | None:
        try:
            with path.open("rb") as file:
                return read_limits(file.read(MOST_BYTES + 1), key, default)
        except FileNotFoundError:
            return None
        except DamagedCalibration as error:
            _log.warning("%s is measured again: %s", path, error)
            return None

    def _measured(
        self,
        path: Path,
        key: dict[str, str],
        loaded: "LoadedCheckpoint",
        checkpoint: VerifiedCheckpoint,
        inference: Inference,
    ) -> Limits:
        from windrow.engine.validation.limits import honest_limits
        from windrow.resources.generation.transformers_generator import TransformersGenerator

        began = time.perf_counter()
        calibration = honest_limits(
            loaded.model,
            TransformersGenerator(loaded),
            inference.environment(checkpoint),
            checkpoint.metadata.policy,
            checkpoint.weights_hash,
            loaded.max_context,
        )
        seconds = time.perf_counter() - began
        document = {
            "schema_version": SCHEMA_VERSION,
            **key,
            "seconds": seconds,
            "limits": asdict(calibration),
        }
        with published(path, replace=True) as temporary:
            temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        _log.info("Limits of checkpoint %s measured in %.1f s", key["weights_hash"], seconds)
        return Limits(calibration, seconds, made=True)


def read_limits(text: bytes, key: dict[str, str], default: Calibration) -> Limits:
    """Limits as a file has them.

    Raises DamagedCalibration for anything but limits of this key, none wider than the default.
    """
    try:
        document = json.loads(text) if len(text) <= MOST_BYTES else None
    except (ValueError, RecursionError) as error:
        raise DamagedCalibration(f"no JSON ({error!r:.100})") from error
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise DamagedCalibration(f"no limits of schema version {SCHEMA_VERSION}")
    for name, value in key.items():
        if document.get(name) != value:
            raise DamagedCalibration(f"{name} is not {value}")
    limits, seconds = document.get("limits"), document.get("seconds")
    expected = {field.name for field in fields(Calibration)}
    if not isinstance(limits, dict) or limits.keys() != expected or not _number(seconds):
        raise DamagedCalibration(f"not the limits {', '.join(sorted(expected))}")
    for name in (*SKETCH_SCORES, *LOGPROB_SCORES):
        if not _number(limits[name]) or not 0 < limits[name] <= getattr(default, name):
            raise DamagedCalibration(
                f"{name} is {limits[name]!r:.40}, not above 0 and at most {getattr(default, name)}"
            )
    rollouts, source = limits["rollouts"], limits["source"]
    if limits["dtype"] != key["dtype"] or type(rollouts) is not int or not isinstance(source, str):
        raise DamagedCalibration("dtype, rollouts or source are not what they should be")
    return Limits(Calibration(**limits), seconds, made=False)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _default(default: Calibration, why: str) -> Limits:
    source = f"{default.source}; not calibrated on this model: {why}"
    return Limits(replace(default, source=source), 0.0, made=False)


def _device_kind(loaded: "LoadedCheckpoint") -> str:
    if loaded.device.type != "cuda":
        return loaded.device.type
    import torch

    return torch.cuda.get_device_name(loaded.device)
