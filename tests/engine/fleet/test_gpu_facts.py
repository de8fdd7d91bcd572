"""What the NVIDIA driver says, and how it fails: by a stand-in, for no driver is here."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pynvml as real_nvml
import pytest

from windrow.engine.fleet import gpu_facts, tasks
from windrow.engine.fleet.fact_formats import chutes_device
from windrow.engine.fleet.facts import GpuFacts, challenge, parse_facts
from windrow.engine.fleet.gpu_facts import FAULTS, read_driver
from windrow.engine.fleet.gpu_reader import Failed, read
from windrow.engine.fleet.nvml_errors import ERRORS, Scope, nvml_error
from windrow.networks.chutes.gpus import CARDS, device_problem
from windrow.resources.fleet.nodes import LocalNode, TaskFailed

STAND_IN = Path(__file__).parents[2] / "support" / "driver"
GIB = 1 << 30
Act = Callable[..., None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Act:
    """Installs the stand-in and says what its functions do."""
    shutil.copy(STAND_IN / "pynvml.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # as a node's own process has it

    def act(**acts: object) -> None:
        (tmp_path / "acts.json").write_text(json.dumps(acts))

    return act


@pytest.fixture
def nvml() -> Iterator[ModuleType]:
    """The stand-in in this process, its acts empty."""
    spec = importlib.util.spec_from_file_location("stand_in_nvml", STAND_IN / "pynvml.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    module.ACTS.clear()


def raising(error: str) -> dict[str, str]:
    return {"raise": error}


def test_a_driver_that_works(driver: Act) -> None:
    driver()
    found = read_driver()
    assert (found.version, found.cuda, found.absent) == ("580.95.05", "13.0", None)
    first, second = found.gpus
    assert (first.processors, first.vram_bytes, first.clock_mhz) == (132, 81559 << 20, 1980.0)
    assert (first.processes, first.unread, first.ecc, first.mig) == (1, {}, True, False)
    assert second.uuid.startswith("GPU-00000001")


@pytest.mark.parametrize(
    ("function", "error", "fault", "said"),
    [
        ("nvmlInit", "LibRmVersionMismatch", "DriverMismatch", "driver: .*To do: reboot"),
        ("nvmlInit", "Unknown", "DriverFailed", "restart the container"),
        ("nvmlInit", "NoPermission", "DriverRefused", "usermod -aG video"),
        ("nvmlInit", "Timeout", "DriverHangs", "reboot"),
        ("nvmlInit", "GpuIsLost", "GpuLost", "reboot"),
        ("nvmlDeviceGetCount", "Uninitialized", "DriverFailed", "not initialised"),
        ("nvmlDeviceGetHandleByIndex@1", "GpuIsLost", "GpuLost", "GPU 1: .*fell off the bus"),
        ("nvmlDeviceGetHandleByIndex@1", "NoPermission", "DriverRefused", "GPU 1: "),
        ("nvmlDeviceGetHandleByIndex@0", "InsufficientPower", "GpuWithoutPower", "power cable"),
        ("nvmlDeviceGetMemoryInfo@1", "GpuIsLost", "GpuLost", "GPU 1: "),
        ("nvmlDeviceGetTemperature@1", "ResetRequired", "GpuNeedsReset", "--gpu-reset -i 1"),
        ("nvmlDeviceGetUUID@0", "Unknown", "DriverFailed", "GPU 0: .*unknown error"),
    ],
)
def test_a_fault_has_a_name_and_a_remedy(
    driver: Act, function: str, error: str, fault: str, said: str
) -> None:
    driver(**{function: raising(error)})
    with pytest.raises(FAULTS[fault], match=said):
        read_driver()


@pytest.mark.parametrize("error", ["LibraryNotFound", "DriverNotLoaded"])
def test_a_machine_without_a_driver_says_why(driver: Act, error: str) -> None:
    driver(nvmlInit=raising(error))
    found = read_driver()
    assert (found.version, found.gpus, found.absent) == (None, (), error)


def test_a_driver_that_hangs_or_crashes(driver: Act) -> None:
    driver(nvmlInit="hang")
    with pytest.raises(gpu_facts.DriverHangs, match="no answer within 1 s"):
        read_driver(1.0)
    driver(nvmlDeviceGetEccMode="crash")
    with pytest.raises(gpu_facts.DriverFailed, match="ended with status -6"):
        read_driver()


FACTS = {
    "nvmlDeviceGetMemoryInfo": "vram_bytes",
    "nvmlDeviceGetNumGpuCores": "processors",
    "nvmlDeviceGetComputeRunningProcesses": "processes",
    "nvmlDeviceGetEccMode": "ecc",
    "nvmlDeviceGetMigMode": "mig",
    "nvmlDeviceGetPowerManagementLimit": "power_limit_watts",
    "nvmlDeviceGetMaxClockInfo": "clock_mhz",
    "nvmlDeviceGetTemperature": "temperature",
    "nvmlDeviceGetCurrPcieLinkGeneration": "pcie_generation",
    "nvmlDeviceGetCurrPcieLinkWidth": "pcie_width",
    "nvmlDeviceGetCudaComputeCapability": "processors",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "throttle",
    "nvmlDeviceGetName": "name",
}


@pytest.mark.parametrize("error", [name for name in ERRORS if name != "InvalidValue"])
@pytest.mark.parametrize("function", FACTS)
def test_a_fact_that_is_not_told_costs_no_working_card(
    nvml: ModuleType, function: str, error: str
) -> None:
    nvml.ACTS[f"{function}@1"] = raising(error)
    if ERRORS[error].scope is Scope.FACT:
        found = read(nvml, dict)
        healthy, poor = found["gpus"]
        assert not poor[FACTS[function]]
        assert set(poor["unread"].values()) == {error}
        assert healthy["unread"] == {}
    else:
        with pytest.raises(Failed) as failed:
            read(nvml, dict)
        assert (failed.value.code, failed.value.index) == (error, 1)


@pytest.mark.parametrize("error", [name for name in ERRORS if name != "InvalidValue"])
@pytest.mark.parametrize(
    "function",
    ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex@0", "nvmlDeviceGetUUID@0"],
)
def test_every_code_that_stops_the_look_is_a_fault(
    nvml: ModuleType, function: str, error: str
) -> None:
    nvml.ACTS[function] = raising(error)
    if function == "nvmlInit" and ERRORS[error].scope is Scope.ABSENT:
        assert read(nvml, dict)["absent"] == error
        return
    with pytest.raises(Failed) as failed:
        read(nvml, dict)
    assert failed.value.code == error
    fault = ERRORS[error].fault
    assert fault in FAULTS or ERRORS[error].scope is Scope.ABSENT
    assert fault != "GpuLost" or error in {"GpuIsLost", "GpuNotFound", "NotFound", "IrqIssue"}


def test_the_table_has_every_code_of_the_library() -> None:
    values = [value for name, value in vars(real_nvml).items() if name.startswith("NVML_ERROR_")]
    for value in values:
        assert nvml_error(real_nvml.NVMLError(value)).number == value
    assert nvml_error(real_nvml.NVMLError(777)).name == "Unknown"


@pytest.mark.parametrize("function", [*FACTS, "nvmlSystemGetCudaDriverVersion_v2"])
def test_a_library_without_a_function(driver: Act, function: str) -> None:
    driver(**{function: "missing"})
    assert len(read_driver().gpus) == 2


@pytest.mark.parametrize(
    ("acts", "fact", "value"),
    [
        ({"nvmlDeviceGetName": "bytes"}, "name", "NVIDIA H100 ??"),
        ({"nvmlDeviceGetName": {"value": "x" * 400}}, "name", "x" * 256),
        ({"nvmlDeviceGetName": {"value": ""}}, "name", ""),
        ({"nvmlDeviceGetMemoryInfo": {"memory": [2**64 - 1, 0]}}, "vram_bytes", None),
        ({"nvmlDeviceGetMemoryInfo": {"memory": [-1, 0]}}, "vram_bytes", None),
        ({"nvmlDeviceGetMaxClockInfo": {"value": "N/A"}}, "clock_mhz", None),
        ({"nvmlDeviceGetTemperature": {"value": -5}}, "temperature", None),
        ({"nvmlDeviceGetCurrPcieLinkWidth": {"value": 2**32 - 1}}, "pcie_width", None),
    ],
)
def test_numbers_that_are_none(driver: Act, acts: dict[str, Any], fact: str, value: object) -> None:
    driver(**acts)
    first, second = read_driver().gpus
    assert getattr(first, fact) == getattr(second, fact) == value
    assert (first.uuid, second.uuid) != ("", "")


def test_versions_and_uuids_that_are_none(driver: Act) -> None:
    driver(
        nvmlSystemGetDriverVersion={"value": "N/A"},
        nvmlSystemGetCudaDriverVersion_v2=raising("FunctionNotFound"),
    )
    assert (read_driver().version, read_driver().cuda) == (None, None)
    driver(**{"nvmlDeviceGetUUID@1": {"value": "N/A"}})
    with pytest.raises(gpu_facts.DriverFailed, match=r"GPU 1: .*'N/A'"):
        read_driver()


@pytest.mark.parametrize(
    ("acts", "reason", "said"),
    [
        ({"nvmlInit": raising("LibRmVersionMismatch")}, "DriverMismatch", "reboot"),
        ({"nvmlInit": raising("Unknown")}, "DriverFailed", "restart the container"),
        ({"nvmlDeviceGetHandleByIndex@1": raising("GpuIsLost")}, "GpuLost", "GPU 1"),
    ],
)
def test_a_node_names_the_fault(driver: Act, acts: dict[str, Any], reason: str, said: str) -> None:
    driver(**acts)
    node = LocalNode("box")
    try:
        with pytest.raises(TaskFailed, match=said) as failed:
            node.ask("facts", challenge(), timeout=60, max_bytes=1 << 20)
        assert failed.value.reason == reason
        driver()
        again = node.ask("facts", challenge(), timeout=60, max_bytes=1 << 20)
        assert len(parse_facts(again.body).gpus) == 2
    finally:
        node.close()


FAIL_ONCE = """
import os
from windrow.engine.fleet import tasks

tasks.TASKS["ping"] = "sitecustomize:fail"
tasks.TASKS["facts"] = "sitecustomize:process"

def fail(request):
    raise RuntimeError("CUDA error: unspecified launch failure")

def process(request):
    return str(os.getpid()).encode()
"""


def test_a_process_whose_cuda_failed_is_replaced(driver: Act, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAIL_ONCE)
    node = LocalNode("box")
    try:
        before = node.ask("facts", b"", timeout=60, max_bytes=100).body
        with pytest.raises(TaskFailed, match="unspecified launch failure") as failed:
            node.ask("ping", b"", timeout=60, max_bytes=100)
        assert failed.value.reason == "DeviceFailed"
        assert node.ask("facts", b"", timeout=60, max_bytes=100).body != before
    finally:
        node.close()


def test_what_pytorch_says_of_cuda_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: str) -> Callable[[bytes], bytes]:
        def task(_: bytes) -> bytes:
            raise RuntimeError(error)

        return task

    monkeypatch.setattr(tasks, "ping", fail("The NVIDIA driver on your system is too old"))
    with pytest.raises(gpu_facts.DeviceFailed, match="too old"):
        tasks.answer("ping", b"")
    monkeypatch.setattr(tasks, "ping", fail("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        tasks.answer("ping", b"")


@pytest.mark.skipif(
    shutil.which("cc") is None, reason="not tested: CUDA's numbers (install a C compiler: cc)"
)
def test_the_clock_rate_is_cudas(
    driver: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(nvmlDeviceGetMemoryInfo=raising("NotSupported"))
    library = str(tmp_path / "libcuda.so.1")
    made = ["cc", "-shared", "-fPIC", "-o", library, str(STAND_IN / "libcuda.c")]
    subprocess.run(made, check=True, timeout=60)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # all cards are looked at all the same
    unknown, known = read_driver().gpus
    assert (unknown.cuda_clock_khz, unknown.vram_bytes, unknown.processors) == (None, None, 132)
    assert (known.cuda_clock_khz, known.cuda_memory_bytes) == (1755000.0, 84987740160)
    assert (known.vram_bytes, known.processors) == (84987740160, 114)
    assert known.unread == {"memory": "NotSupported"}


CARDS_OF_NVML = [  # name, short reference, MiB, processors, NVML's largest graphics clock, CUDA's
    ("NVIDIA GeForce RTX 3090", "3090", 24576, 82, 2100, 1695),
    ("NVIDIA GeForce RTX 4090", "4090", 24564, 128, 3105, 2520),
    ("NVIDIA GeForce RTX 5090", "5090", 32607, 170, 3090, 2407),
    ("NVIDIA RTX A6000", "a6000", 49140, 84, 2100, 1800),
    ("NVIDIA RTX A5000", "a5000", 24564, 64, 2100, 1695),
    ("NVIDIA RTX 6000 Ada Generation", "a6000_ada", 49140, 142, 3105, 2505),
    ("NVIDIA H100 80GB HBM3", "h100_sxm", 81559, 132, 1980, 1980),
]


@pytest.mark.parametrize(("name", "ref", "mib", "processors", "clock", "cuda"), CARDS_OF_NVML)
def test_nvmls_largest_clock_refuses_no_card(
    name: str, ref: str, mib: int, processors: int, clock: int, cuda: int
) -> None:
    gpu = GpuFacts(
        index=0,
        uuid="GPU-1",
        name=name,
        vram_bytes=mib << 20,
        vram_used_bytes=0,
        processors=processors,
        clock_mhz=float(clock),
    )
    assert device_problem(chutes_device(gpu, ref)) is None
    measured = gpu.model_copy(update={"cuda_clock_khz": cuda * 1000.0})
    assert chutes_device(measured, ref).clock_rate == cuda * 1000
    assert device_problem(chutes_device(measured, ref)) is None
    too_fast = gpu.model_copy(update={"cuda_clock_khz": CARDS[ref].boost_clock * 1101.0})
    assert "clock" in str(device_problem(chutes_device(too_fast, ref)))
    unknown = gpu.model_copy(update={"processors": None, "vram_bytes": None})
    assert device_problem(chutes_device(unknown, ref)) is None
    few = gpu.model_copy(update={"cuda_memory_bytes": 8 * GIB})
    assert "memory" in str(device_problem(chutes_device(few, ref)))


def test_the_reader_loads_nothing_else() -> None:
    code = "import sys, windrow.engine.fleet.gpu_reader; print(*sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "pydantic", "numpy", "dagster"} & set(said.stdout.split())
