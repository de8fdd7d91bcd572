"""What a machine is: processor, memory, disk, network, system, GPUs; in one schema for everyone.

Facts are a node's own word. Whoever asks checks their form here, and their truth by other means.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import psutil
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from windrow import WindrowError
from windrow.engine.fleet.frames import BadFrame, from_json, to_json

MAX_ANSWER: Final = 1 << 20
_SPEED_BYTES: Final = 64 << 20

Text = Annotated[str, Field(max_length=256)]
Count = Annotated[int, Field(ge=0, le=2**50)]
Few = Annotated[int, Field(ge=0, le=2**31 - 1)]
Memory = Annotated[int, Field(ge=0, le=2**41)]
Uuid = Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9A-Za-z-]{1,60}$")]
Code = Annotated[str, Field(pattern=r"^[A-Za-z_]{1,40}$")]
Driver = Annotated[str, Field(pattern=r"^[0-9]{1,4}([.][0-9A-Za-z.-]{0,40})?$")]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,4}[.][0-9]{1,4}$")]
Measure = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]

_DRIVER: Final = TypeAdapter[str](Driver)
_CUDA: Final = TypeAdapter[str](Version)


class BadFacts(WindrowError):
    """A node's facts have no sound form."""


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GpuFacts(_Facts):
    """One GPU, as NVML names things. clocks in MHz, memory in bytes, temperature in Celsius.

    None: not measured; `unread` has NVML's code by the name of the query. clock_mhz: the largest
    clock that NVML lists, which is above what CUDA reports. cuda_clock_khz, cuda_memory_bytes: as
    CUDA and OpenCL report them. vram_bytes: NVML's total, or CUDA's where NVML has none (unified
    memory). processes: others than the one that asks.
    """

    index: Annotated[int, Field(ge=0, le=255)]
    uuid: Uuid
    name: Text
    vram_bytes: Memory | None
    vram_used_bytes: Memory | None
    processors: Few | None = None
    clock_mhz: Measure | None = None
    memory_clock_mhz: Measure | None = None
    cuda_clock_khz: Measure | None = None
    cuda_memory_bytes: Memory | None = None
    power_limit_watts: Measure | None = None
    temperature: Measure | None = None
    ecc: bool | None = None
    mig: bool | None = None
    pcie_generation: Few | None = None
    pcie_width: Few | None = None
    throttle: Annotated[tuple[Text, ...], Field(max_length=32, strict=False)] = ()
    processes: Few | None = 0
    unread: Annotated[dict[Code, Code], Field(max_length=32)] = {}


class Interface(_Facts):
    """A network interface and its addresses, each with its prefix length."""

    name: Text
    addresses: Annotated[tuple[Text, ...], Field(max_length=64, strict=False)] = ()


class Speeds(_Facts):
    """Megabytes (10^6) per second, measured on 64 MiB."""

    disk_read: Measure
    disk_write: Measure
    ram_read: Measure
    ram_write: Measure


class Facts(_Facts):
    """One machine at one moment. clock: its own time, unix seconds. Sizes in bytes.

    driver_absent: code of `nvml_errors` that says why there is no driver.
    """

    clock: Measure
    hostname: Text
    system: Text
    cpu_model: Text
    cpu_cores: Few
    cpu_threads: Few
    cpu_mhz: Measure
    ram_bytes: Count
    ram_available_bytes: Count
    ram_free_bytes: Count
    swap_bytes: Count
    swap_free_bytes: Count
    disk_path: Annotated[str, Field(max_length=4096)]
    disk_bytes: Count
    disk_free_bytes: Count
    container: Text | None
    docker: bool
    interfaces: Annotated[tuple[Interface, ...], Field(max_length=256, strict=False)]
    driver: Driver | None
    cuda: Version | None
    driver_absent: Code | None = None
    gpus: Annotated[tuple[GpuFacts, ...], Field(max_length=64, strict=False)]
    speeds: Speeds | None = None


def valid_driver(version: object) -> str | None:
    """A driver's version, or None where it is not one."""
    return _valid(_DRIVER, version)


def valid_cuda(version: object) -> str | None:
    """A CUDA version, or None where it is not one."""
    return _valid(_CUDA, version)


def _valid(adapter: TypeAdapter[str], value: object) -> str | None:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def challenge(*, speeds: bool = False) -> bytes:
    """The request for facts. speeds: measure disk and memory too, a second or two."""
    return to_json({"speeds": speeds})


def answer(request: bytes) -> bytes:
    """The facts of this machine, on the machine. Raises BadFacts for another request."""
    asked = _object(request)
    return to_json(collect(speeds=asked.get("speeds") is True).model_dump(mode="json"))


def parse_facts(data: bytes) -> Facts:
    """Facts from a node. Raises BadFacts."""
    try:
        return Facts.model_validate(_object(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise BadFacts(
            f"{error.error_count()} fields of the facts are wrong, first {place}: {first['msg']}"
        ) from None


def _object(data: bytes) -> dict[str, Any]:
    try:
        return from_json(data, max_bytes=MAX_ANSWER)
    except BadFrame as error:
        raise BadFacts(str(error)) from error


def cache_folder() -> Path:
    """Where models are kept, and so whose disk counts: HF_HOME, or the home folder."""
    path = Path(os.environ.get("HF_HOME") or Path.home())
    while not path.exists():
        path = path.parent
    return path


def collect(*, speeds: bool = False) -> Facts:
    """The facts of this machine. Raises GpuFault."""
    from windrow.engine.fleet.gpu_facts import read_driver

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    folder = cache_folder()
    disk = psutil.disk_usage(str(folder))
    frequency = psutil.cpu_freq()
    driver = read_driver()
    return Facts(
        clock=time.time(),
        hostname=socket.gethostname()[:256],
        system=platform.platform()[:256],
        cpu_model=_cpu_model()[:256],
        cpu_cores=psutil.cpu_count(logical=False) or 0,
        cpu_threads=psutil.cpu_count() or 0,
        cpu_mhz=float(max(frequency.max, frequency.current)) if frequency else 0.0,
        ram_bytes=memory.total,
        ram_available_bytes=memory.available,
        ram_free_bytes=memory.free,
        swap_bytes=swap.total,
        swap_free_bytes=swap.free,
        disk_path=str(folder)[:4096],
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        container=_container(),
        docker=_docker(),
        interfaces=_interfaces(),
        driver=driver.version,
        cuda=driver.cuda,
        driver_absent=driver.absent,
        gpus=driver.gpus,
        speeds=_speeds(folder) if speeds else None,
    )


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _container() -> str | None:
    """What kind of container this is, or None on a machine of its own."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return None


def _docker() -> bool:
    """Whether containers can be started here."""
    program = shutil.which("docker")
    if program is None:
        return False
    try:
        asked = subprocess.run([program, "info"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _interfaces() -> tuple[Interface, ...]:
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        kept = [
            f"{address.address.partition('%')[0]}/{_prefix(address.netmask)}"
            for address in addresses
            if address.family in (socket.AF_INET, socket.AF_INET6)
        ]
        found.append(Interface(name=name[:256], addresses=tuple(kept[:64])))
    return tuple(found[:256])


def _prefix(netmask: str | None) -> int:
    if not netmask:
        return 32
    family = socket.AF_INET6 if ":" in netmask else socket.AF_INET
    return sum(byte.bit_count() for byte in socket.inet_pton(family, netmask))


def _speeds(folder: Path) -> Speeds:
    import tempfile

    import numpy as np

    block = os.urandom(1 << 20) * (_SPEED_BYTES >> 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
        writing = time.perf_counter() - began
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        reading = _seconds(file.read)
    source = np.frombuffer(block, np.uint64)
    target = np.empty_like(source)
    copying = _seconds(lambda: np.copyto(target, source))
    summing = _seconds(lambda: source.sum())
    disk_write, disk_read, ram_write, ram_read = (
        _SPEED_BYTES / 1e6 / max(seconds, 1e-9) for seconds in (writing, reading, copying, summing)
    )
    return Speeds(
        disk_read=disk_read, disk_write=disk_write, ram_read=ram_read, ram_write=ram_write
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def facts_json(facts: Facts) -> str:
    """Facts as text, for a row of the lake."""
    return json.dumps(facts.model_dump(mode="json"), separators=(",", ":"), ensure_ascii=False)
