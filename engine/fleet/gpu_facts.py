"""The GPUs of this machine as its driver reports them; without a driver, an empty list."""

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from windrow import WindrowError
from windrow.engine.fleet.facts import MAX_ANSWER, GpuFacts, valid_cuda, valid_driver
from windrow.engine.fleet.nvml_errors import ERRORS, NvmlError

DRIVER_SECONDS: Final = 45.0
"""Maximum time for all cards: without persistence mode a card takes seconds to start."""
_MODULE: Final = "windrow.engine.fleet.gpu_reader"


class GpuFault(WindrowError):
    """The NVIDIA driver, or one of its cards, cannot be used. The message has the remedy."""


class GpuLost(GpuFault):
    """A GPU that the driver lists does not answer."""


class GpuNeedsReset(GpuFault):
    """A GPU does not work until it is reset."""


class GpuWithoutPower(GpuFault):
    """A GPU has no power."""


class DriverMismatch(GpuFault):
    """The driver's libraries and its kernel module have different versions."""


class DriverRefused(GpuFault):
    """This user may not ask the driver."""


class DriverHangs(GpuFault):
    """The driver does not answer in time."""


class DriverTooOld(GpuFault):
    """The driver has no query without which there is nothing to say of a card."""


class DriverFailed(GpuFault):
    """The driver fails in another way."""


class DeviceFailed(GpuFault):
    """PyTorch cannot use a GPU, or a GPU stopped working in the middle of a task."""


FAULTS: Final = {
    fault.__name__: fault
    for fault in (
        GpuLost,
        GpuNeedsReset,
        GpuWithoutPower,
        DriverMismatch,
        DriverRefused,
        DriverHangs,
        DriverTooOld,
        DriverFailed,
        DeviceFailed,
    )
}


@dataclass(frozen=True)
class Driver:
    """What the driver says. version, cuda: None where it does not tell.

    absent: code of `nvml_errors` that says why there is no driver; None where there is one.
    """

    version: str | None
    cuda: str | None
    gpus: tuple[GpuFacts, ...]
    absent: str | None


def read_driver(seconds: float = DRIVER_SECONDS) -> Driver:
    """Ask the driver, in a process of its own. Raises GpuFault, by name as in FAULTS."""
    said = _said(seconds)
    if code := said.get("failed"):
        raise _fault(ERRORS.get(code, ERRORS["Unknown"]), said.get("index"), said.get("message"))
    return Driver(
        version=valid_driver(said["driver"]),
        cuda=valid_cuda(said["cuda"]),
        gpus=tuple(_gpu(gpu) for gpu in said["gpus"]),
        absent=said["absent"],
    )


def _fault(error: NvmlError, index: int | None, message: str | None) -> GpuFault:
    what = "NVIDIA driver" if index is None else f"GPU {index}"
    remedy = error.remedy.replace("INDEX", str(index)) or "see nvidia-smi"
    told = f" (NVML: {message})" if message else ""
    return FAULTS.get(error.fault, DriverFailed)(f"{what}: {error.meaning}. To do: {remedy}{told}")


def _said(seconds: float) -> dict[str, Any]:
    environment = {
        name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"
    } | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        # A process that waits inside the kernel module ends only when the driver lets it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        timeout = ERRORS["Timeout"]
        raise _fault(timeout, None, f"no answer within {seconds:.0f} s") from None
    if process.returncode != 0 or len(out) > MAX_ANSWER:
        last = err.decode(errors="replace").strip().rpartition("\n")[2][:300]
        ended = f"the process that asked it ended with status {process.returncode}"
        raise _fault(ERRORS["Unknown"], None, f"{ended}: {last}" if last else ended)
    found: dict[str, Any] = json.loads(out)
    return found


def _gpu(said: dict[str, Any]) -> GpuFacts:
    """A card's facts. An optional number that has no sound form is None. Raises DriverFailed."""
    said["name"] = re.sub(r"[^\x20-\x7e]", "?", str(said["name"]))[:256]
    for name in ("clock_mhz", "memory_clock_mhz", "temperature"):
        if isinstance(said[name], int):
            said[name] = float(said[name])
    try:
        return GpuFacts.model_validate(said)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors()}
    if wrong & {"index", "uuid", "name"}:
        where = f"uuid {said['uuid']!r}"[:100]
        raise _fault(ERRORS["InvalidValue"], said["index"], where)
    unread = said["unread"] | dict.fromkeys(wrong, "InvalidValue")
    return GpuFacts.model_validate(said | dict.fromkeys(wrong) | {"unread": unread})
