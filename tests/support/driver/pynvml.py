"""A stand-in for nvidia-ml-py on a machine without a driver: two H100 that fail as they are told.

Put this folder on the path. `acts.json` beside this file says what a function does, by its name, or
by `name@index` for one card: {"raise": error}, {"value": answer}, "bytes", "hang", "crash",
"missing". Errors have the names and numbers of nvidia-ml-py's.
"""

import json
import os
import time
from pathlib import Path

_ACTS = Path(__file__).with_name("acts.json")
ACTS = json.loads(_ACTS.read_text()) if _ACTS.exists() else {}


class NVMLError(Exception):
    """An error of NVML, as nvidia-ml-py has it: a class a code."""

    value = 999


def _error(name, value):
    globals()[f"NVMLError_{name}"] = type(f"NVMLError_{name}", (NVMLError,), {"value": value})


_NAMES = (
    *("Uninitialized", "InvalidArgument", "NotSupported", "NoPermission", "AlreadyInitialized"),
    *("NotFound", "InsufficientSize", "InsufficientPower", "DriverNotLoaded", "Timeout"),
    *("IrqIssue", "LibraryNotFound", "FunctionNotFound", "CorruptedInforom", "GpuIsLost"),
    *("ResetRequired", "OperatingSystem", "LibRmVersionMismatch", "InUse", "Memory", "NoData"),
    *("VgpuEccNotSupported", "InsufficientResources", "FreqNotSupported"),
    *("ArgumentVersionMismatch", "Deprecated", "NotReady", "GpuNotFound", "InvalidState"),
    "ResetTypeNotSupported",
)
for _value, _name in enumerate(_NAMES, start=1):
    _error(_name, _value)
_error("Unknown", 999)


class _Memory:
    def __init__(self, total=81559 << 20, used=0):
        self.total, self.used = total, used


class _Process:
    def __init__(self, pid):
        self.pid = pid


ANSWERS = {
    "nvmlInit": None,
    "nvmlShutdown": None,
    "nvmlSystemGetCudaDriverVersion_v2": 13000,
    "nvmlSystemGetDriverVersion": "580.95.05",
    "nvmlDeviceGetCount": 2,
    "nvmlDeviceGetHandleByIndex": lambda index: index,
    "nvmlDeviceGetUUID": lambda index: f"GPU-{index:08d}-1111-2222-3333-444444444444",
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetMemoryInfo": lambda index: _Memory(),
    "nvmlDeviceGetNumGpuCores": 16896,
    "nvmlDeviceGetComputeRunningProcesses": lambda index: [_Process(4242), _Process(os.getpid())],
    "nvmlDeviceGetEccMode": (1, 1),
    "nvmlDeviceGetMigMode": (0, 0),
    "nvmlDeviceGetPowerManagementLimit": 700000,
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMaxClockInfo": lambda index, kind: 1980 if kind == 0 else 2619,
    "nvmlDeviceGetTemperature": 40,
    "nvmlDeviceGetCurrPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 1,
}


def _function(name):
    def act(*arguments):
        told = ACTS.get(f"{name}@{arguments[0]}" if arguments else name, ACTS.get(name))
        if told == "hang":
            time.sleep(600)
        if told == "crash":
            os.abort()
        if told == "bytes":
            return b"NVIDIA H100 \xff\xfe".decode()
        if isinstance(told, dict) and "raise" in told:
            error = globals()[f"NVMLError_{told['raise']}"]
            raise error
        if isinstance(told, dict) and "memory" in told:
            return _Memory(*told["memory"])
        if isinstance(told, dict):
            return told["value"]
        answer = ANSWERS[name]
        return answer(*arguments) if callable(answer) else answer

    return act


for _name in ANSWERS:
    if ACTS.get(_name) != "missing":
        globals()[_name] = _function(_name)
