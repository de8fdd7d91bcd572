"""The process that asks the NVIDIA driver: NVML for every card, CUDA for what networks compare.

    python -m windrow.engine.fleet.gpu_reader

It prints one JSON object and ends. A driver that hangs or crashes then takes nothing else with it.
Only the standard library and pynvml are loaded.
"""

import contextlib
import ctypes
import json
import os
import sys
import uuid
from collections.abc import Callable
from typing import Any, Final

from windrow.engine.fleet.nvml_errors import ERRORS, Scope, nvml_error

THROTTLES: Final = (
    ("SwPowerCap", "power cap"),
    ("HwSlowdown", "hardware slowdown"),
    ("SyncBoost", "sync boost"),
    ("SwThermalSlowdown", "too hot (driver)"),
    ("HwThermalSlowdown", "too hot (hardware)"),
    ("HwPowerBrakeSlowdown", "power brake"),
    ("ApplicationsClocksSetting", "clocks set by hand"),
)
"""Reasons that hold a busy card's clock down. An idle card is not held down."""

# Attributes of cuDeviceGetAttribute: the numbers that CUDA and OpenCL report, and NVML does not.
_CLOCK_RATE: Final = 13
_MULTIPROCESSORS: Final = 16

# CUDA cores of one multiprocessor, by compute capability.
_CORES: Final[dict[tuple[int, ...], int]] = {(7, 0): 64, (7, 5): 64, (8, 0): 64}
_CORES_ELSE: Final = 128


class Failed(Exception):
    """The driver cannot be asked at all, or a card does not answer."""

    def __init__(self, code: str, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.index = index


def read(nvml: Any, cuda: Callable[[], dict[str, dict[str, int]]]) -> dict[str, Any]:
    """Every card as NVML has it. nvml: the module. cuda: see `cuda_devices`. Raises Failed.

    A number that the driver does not give is None, with the code in `unread`.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        known = nvml_error(error)
        if known.scope is Scope.ABSENT:
            return {"driver": None, "cuda": None, "gpus": [], "absent": known.name}
        raise Failed(known.name, str(error)) from error
    try:
        count = _needed(nvml, None, nvml.nvmlDeviceGetCount)
        ask = _Asked(nvml, None)
        version = ask("cuda", "nvmlSystemGetCudaDriverVersion_v2")
        driver = ask("driver", "nvmlSystemGetDriverVersion")
        of_cuda = cuda() if count else {}
        return {
            "driver": driver,
            "cuda": None if version is None else f"{version // 1000}.{version % 1000 // 10}",
            "gpus": [_gpu(nvml, index, of_cuda) for index in range(count)],
            "absent": None,
        }
    finally:
        with contextlib.suppress(nvml.NVMLError):  # everything is read
            nvml.nvmlShutdown()


def _needed(nvml: Any, index: int | None, question: Callable[[], Any]) -> Any:
    """The answer, or Failed: without it there is nothing to say of the card."""
    try:
        return question()
    except nvml.NVMLError as error:
        raise Failed(nvml_error(error).name, str(error), index) from error


class _Asked:
    """Asks for facts of one card, or of the machine; notes what the driver does not tell."""

    def __init__(self, nvml: Any, index: int | None) -> None:
        self._nvml = nvml
        self._index = index
        self.unread: dict[str, str] = {}

    def __call__(self, fact: str, function: str, *arguments: Any) -> Any:
        ask = getattr(self._nvml, function, None)
        if ask is None:
            self.unread[fact] = "FunctionNotFound"
            return None
        try:
            return _text(ask(*arguments))
        except UnicodeDecodeError as error:  # pynvml decodes a name that is not UTF-8
            return _text(error.object)
        except self._nvml.NVMLError as error:
            known = nvml_error(error)
            if known.scope is not Scope.FACT:
                raise Failed(known.name, str(error), self._index) from error
            self.unread[fact] = known.name
            return None


def _text(answer: Any) -> Any:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def _gpu(nvml: Any, index: int, of_cuda: dict[str, dict[str, int]]) -> dict[str, Any]:
    handle = _needed(nvml, index, lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    ask = _Asked(nvml, index)
    identifier = _needed(nvml, index, lambda: _text(nvml.nvmlDeviceGetUUID(handle)))
    cuda = of_cuda.get(identifier, {})
    memory = ask("memory", "nvmlDeviceGetMemoryInfo", handle)
    cores = ask("processors", "nvmlDeviceGetNumGpuCores", handle)
    capability = ask("capability", "nvmlDeviceGetCudaComputeCapability", handle)
    ecc = ask("ecc", "nvmlDeviceGetEccMode", handle)
    mig = ask("mig", "nvmlDeviceGetMigMode", handle)
    power = ask("power_limit", "nvmlDeviceGetPowerManagementLimit", handle)
    reasons = ask("throttle", "nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    processes = ask("processes", "nvmlDeviceGetComputeRunningProcesses", handle)
    own = {os.getpid(), os.getppid()}
    return {
        "index": index,
        "uuid": identifier,
        "name": ask("name", "nvmlDeviceGetName", handle) or "",
        "vram_bytes": memory.total if memory else cuda.get("memory_bytes"),
        "vram_used_bytes": memory.used if memory else None,
        "processors": cuda.get("processors") or _multiprocessors(cores, capability),
        "clock_mhz": ask("clock", "nvmlDeviceGetMaxClockInfo", handle, 0),
        "memory_clock_mhz": ask("memory_clock", "nvmlDeviceGetMaxClockInfo", handle, 2),
        "cuda_clock_khz": cuda.get("clock_khz"),
        "cuda_memory_bytes": cuda.get("memory_bytes"),
        "power_limit_watts": None if power is None else power / 1000,
        "temperature": ask("temperature", "nvmlDeviceGetTemperature", handle, 0),
        "ecc": None if ecc is None else bool(ecc[0]),
        "mig": None if mig is None else bool(mig[0]),
        "pcie_generation": ask("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration", handle),
        "pcie_width": ask("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth", handle),
        "throttle": _throttles(nvml, reasons or 0),
        "processes": None
        if processes is None
        else sum(process.pid not in own for process in processes),
        "unread": ask.unread,
    }


def _multiprocessors(cores: int | None, capability: tuple[int, int] | None) -> int | None:
    if cores is None or capability is None:
        return None
    return cores // _CORES.get(tuple(capability), _CORES_ELSE)


def _throttles(nvml: Any, reasons: int) -> list[str]:
    return [
        said
        for name, said in THROTTLES
        if reasons & getattr(nvml, f"nvmlClocksThrottleReason{name}", 0)
    ]


def cuda_devices() -> dict[str, dict[str, int]]:
    """By NVML uuid, what CUDA says of each card: clock_khz, processors, memory_bytes.

    Empty where CUDA cannot be asked: the numbers are then not measured. No context is made.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {}
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return {}
    # The second version tells a part of a split card by its own name, never by the card's.
    identify = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
    found = {}
    for index in range(count.value):
        device, identifier = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        if cuda.cuDeviceGet(ctypes.byref(device), index):
            continue
        if identify(ctypes.byref(identifier), device):
            continue
        numbers = {
            "clock_khz": _attribute(cuda, device, _CLOCK_RATE),
            "processors": _attribute(cuda, device, _MULTIPROCESSORS),
            "memory_bytes": _total_memory(cuda, device),
        }
        known = {name: number for name, number in numbers.items() if number}
        found[f"GPU-{uuid.UUID(bytes=bytes(identifier))}"] = known
    return found


def _attribute(cuda: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int | None:
    value = ctypes.c_int()
    failed = cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return None if failed else value.value


def _total_memory(cuda: ctypes.CDLL, device: ctypes.c_int) -> int | None:
    value = ctypes.c_size_t()
    return None if cuda.cuDeviceTotalMem_v2(ctypes.byref(value), device) else value.value


def main() -> None:
    """Print what the driver says: the cards, or `failed` with code, message and index."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the driver's libraries may print
    try:
        import pynvml
    except ImportError:
        found: dict[str, Any] = {
            "driver": None,
            "cuda": None,
            "gpus": [],
            "absent": ERRORS["LibraryNotFound"].name,
        }
    else:
        try:
            found = read(pynvml, cuda_devices)
        except Failed as error:
            found = {"failed": error.code, "message": str(error)[:500], "index": error.index}
    json.dump(found, answers)
    answers.close()


if __name__ == "__main__":
    main()
