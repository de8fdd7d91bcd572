"""Return codes of NVML: what each means, what it costs, and what to do about it.

Only the standard library: the process that asks the driver loads nothing else.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What an error costs, wherever it occurs during a query about one card.

    FACT: this one number; the card works. CARD: the card. MACHINE: every card. ABSENT: this
    machine has no NVIDIA driver that is loaded.
    """

    FACT = "fact"
    CARD = "card"
    MACHINE = "machine"
    ABSENT = "absent"


@dataclass(frozen=True)
class NvmlError:
    """One return code. name: of pynvml's exception after `NVMLError_`.

    fault: name of the error that is raised where the code costs a card or the machine, and where a
    code of scope FACT stops NVML from starting or from finding a card.
    """

    number: int
    name: str
    scope: Scope
    fault: str
    meaning: str
    remedy: str


_LOG: Final = "look for NVRM and Xid lines: sudo dmesg | grep -iE 'nvrm|xid'"
_REBOOT: Final = f"reboot the machine; if it returns, {_LOG}"
_UPDATE: Final = "update the NVIDIA driver"
_RESET: Final = (
    "stop all programs on the card, then: sudo nvidia-smi --gpu-reset -i INDEX; if that fails, "
    "reboot the machine"
)
_RIGHTS: Final = (
    "run as a user that may open /dev/nvidia*: sudo usermod -aG video,render USER, then log in "
    "again; in a container, pass the GPUs to it (docker run --gpus all)"
)
_UNKNOWN: Final = (
    f"restart the container if this is one (it loses its GPUs when the host runs systemctl "
    f"daemon-reload); on the host, {_LOG}"
)

_F, _C, _M, _A = Scope.FACT, Scope.CARD, Scope.MACHINE, Scope.ABSENT
ERRORS: Final = {
    error.name: error
    for error in (
        NvmlError(1, "Uninitialized", _M, "DriverFailed", "NVML is not initialised", _UNKNOWN),
        NvmlError(2, "InvalidArgument", _F, "DriverFailed", "NVML refuses the argument", _UPDATE),
        NvmlError(3, "NotSupported", _F, "DriverFailed", "this card does not report it", ""),
        NvmlError(4, "NoPermission", _F, "DriverRefused", "this user may not ask for it", _RIGHTS),
        NvmlError(5, "AlreadyInitialized", _F, "DriverFailed", "NVML is initialised already", ""),
        NvmlError(6, "NotFound", _F, "GpuLost", "the driver does not find it", _LOG),
        NvmlError(7, "InsufficientSize", _F, "DriverFailed", "the answer is too long", _UPDATE),
        NvmlError(
            8,
            "InsufficientPower",
            _C,
            "GpuWithoutPower",
            "the card's power cables are not connected properly",
            "shut the machine down and connect every power cable of the card",
        ),
        NvmlError(
            9,
            "DriverNotLoaded",
            _A,
            "DriverNotLoaded",
            "the NVIDIA kernel module is not loaded",
            "sudo modprobe nvidia; if that fails, install the driver for this kernel: dkms status",
        ),
        NvmlError(10, "Timeout", _F, "DriverHangs", "the driver did not answer in time", _REBOOT),
        NvmlError(
            11,
            "IrqIssue",
            _C,
            "GpuLost",
            "the kernel has a problem with the card's interrupts",
            _REBOOT,
        ),
        NvmlError(
            12,
            "LibraryNotFound",
            _A,
            "LibraryNotFound",
            "libnvidia-ml.so.1 is not installed",
            "install the NVIDIA driver; in a container, pass the driver to it: docker run --gpus "
            "all with NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        ),
        NvmlError(
            13, "FunctionNotFound", _F, "DriverTooOld", "the driver has no such query", _UPDATE
        ),
        NvmlError(
            14,
            "CorruptedInforom",
            _F,
            "DriverFailed",
            "the card's stored information (infoROM) is corrupt",
            "the card may work; ask the vendor for a repair if memory errors appear",
        ),
        NvmlError(15, "GpuIsLost", _C, "GpuLost", "the card fell off the bus", _REBOOT),
        NvmlError(16, "ResetRequired", _C, "GpuNeedsReset", "the card needs a reset", _RESET),
        NvmlError(
            17,
            "OperatingSystem",
            _F,
            "DriverRefused",
            "the operating system or the container blocks the request",
            _RIGHTS,
        ),
        NvmlError(
            18,
            "LibRmVersionMismatch",
            _M,
            "DriverMismatch",
            "library and kernel module have different versions after an update",
            "reboot the machine; in a container, restart the container",
        ),
        NvmlError(19, "InUse", _F, "DriverFailed", "the card is in use", _RESET),
        NvmlError(
            20,
            "Memory",
            _F,
            "DriverFailed",
            "the driver has not enough memory",
            "free memory of the machine: free -h",
        ),
        NvmlError(21, "NoData", _F, "DriverFailed", "the driver has no data", ""),
        NvmlError(22, "VgpuEccNotSupported", _F, "DriverFailed", "not with ECC on a vGPU", ""),
        NvmlError(
            23,
            "InsufficientResources",
            _F,
            "DriverFailed",
            "the driver has not enough resources for the query",
            _LOG,
        ),
        NvmlError(24, "FreqNotSupported", _F, "DriverFailed", "the card has no such clock", ""),
        NvmlError(
            25,
            "ArgumentVersionMismatch",
            _F,
            "DriverTooOld",
            "the driver knows another version of the query",
            _UPDATE,
        ),
        NvmlError(26, "Deprecated", _F, "DriverFailed", "the driver no longer answers it", ""),
        NvmlError(27, "NotReady", _F, "DriverFailed", "the card is not ready yet", _REBOOT),
        NvmlError(28, "GpuNotFound", _C, "GpuLost", "the driver finds no such card", _REBOOT),
        NvmlError(29, "InvalidState", _F, "DriverFailed", "not in this state of the card", ""),
        NvmlError(30, "ResetTypeNotSupported", _F, "DriverFailed", "no such reset", ""),
        NvmlError(
            999,
            "Unknown",
            _F,
            "DriverFailed",
            "the driver reports an unknown error",
            _UNKNOWN,
        ),
        # Not NVML's: what an answer itself can lack.
        NvmlError(
            -1,
            "InvalidValue",
            _F,
            "DriverFailed",
            "the driver's answer is not valid",
            _UPDATE,
        ),
    )
}
"""By name. A code that is not listed counts as Unknown."""

_BY_NUMBER: Final = {error.number: error for error in ERRORS.values()}


def nvml_error(error: BaseException) -> NvmlError:
    """The entry of an exception of pynvml: by its class, else by its number, else Unknown."""
    name = type(error).__name__.removeprefix("NVMLError_")
    number = getattr(error, "value", -1)
    return ERRORS.get(name) or _BY_NUMBER.get(number, ERRORS["Unknown"])
