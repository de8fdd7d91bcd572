"""What NVML says of the GPUs of this machine; without any, an empty list."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from windrow import WindrowError
from windrow.engine.fleet.facts import GpuFacts

_T = TypeVar("_T")

THROTTLES: Final = (
    ("SwPowerCap", "power cap"),
    ("HwSlowdown", "hardware slowdown"),
    ("SyncBoost", "sync boost"),
    ("SwThermalSlowdown", "too hot (driver)"),
    ("HwThermalSlowdown", "too hot (hardware)"),
    ("HwPowerBrakeSlowdown", "power brake"),
    ("ApplicationsClocksSetting", "clocks set by hand"),
)
"""Reasons that hold a busy card's clock down; idling is none."""


class GpuLost(WindrowError):
    """A GPU the driver lists does not answer."""


def driver_and_gpus() -> tuple[str | None, str | None, list[GpuFacts]]:
    """Driver, CUDA version of the driver, and every GPU. Raises GpuLost."""
    with _nvml() as nvml:
        if nvml is None:
            return None, None, []
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        gpus = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                gpus.append(_gpu(nvml, index))
            except nvml.NVMLError as error:
                raise GpuLost(
                    f"GPU {index} is listed but does not answer ({error}). See `nvidia-smi` and "
                    "the kernel log (Xid errors); a reset or a restart brings it back"
                ) from error
        driver = nvml.nvmlSystemGetDriverVersion()
        return driver, f"{cuda // 1000}.{cuda % 1000 // 10}", gpus


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    try:
        import pynvml as nvml
    except ImportError:
        yield None
        return
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> GpuFacts:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)

    def asked(question: Callable[[], _T]) -> _T | None:
        """None for what this kind of card has no answer to."""
        try:
            return question()
        except nvml.NVMLError_NotSupported:
            return None

    ecc = asked(lambda: nvml.nvmlDeviceGetEccMode(handle)[0])
    mig = asked(lambda: nvml.nvmlDeviceGetMigMode(handle)[0])
    power = asked(lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle))
    processors = asked(lambda: nvml.nvmlDeviceGetNumGpuCores(handle))
    capability = asked(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    return GpuFacts(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        vram_bytes=memory.total,
        vram_used_bytes=memory.used,
        processors=_multiprocessors(processors, capability),
        clock_mhz=asked(lambda: float(nvml.nvmlDeviceGetMaxClockInfo(handle, 0))),
        memory_clock_mhz=asked(lambda: float(nvml.nvmlDeviceGetMaxClockInfo(handle, 2))),
        power_limit_watts=None if power is None else power / 1000,
        temperature=asked(lambda: float(nvml.nvmlDeviceGetTemperature(handle, 0))),
        ecc=None if ecc is None else bool(ecc),
        mig=None if mig is None else bool(mig),
        pcie_generation=asked(lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)),
        pcie_width=asked(lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)),
        throttle=_throttles(nvml, asked(lambda: _reasons(nvml, handle)) or 0),
        processes=len(
            [
                process
                for process in asked(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
                or []
                if process.pid != os.getpid()
            ]
        ),
    )


# CUDA cores of one multiprocessor, by compute capability.
_CORES: Final = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 7): 128, (8, 9): 128}
_CORES_SINCE_HOPPER: Final = 128


def _multiprocessors(cores: int | None, capability: tuple[int, int] | None) -> int | None:
    if cores is None or capability is None:
        return None
    major, minor = capability
    return cores // _CORES.get((major, minor), _CORES_SINCE_HOPPER)


def _reasons(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _throttles(nvml: Any, reasons: int) -> tuple[str, ...]:
    return tuple(
        said
        for name, said in THROTTLES
        if reasons & getattr(nvml, f"nvmlClocksThrottleReason{name}", 0)
    )
