"""A machine's facts in the formats of the networks."""

import uuid
from typing import Any

from windrow.engine.fleet.facts import Facts, GpuFacts
from windrow.networks.chutes.gpus import Device, card_of

_MIB = 1024 * 1024


def perf_info(facts: Facts) -> dict[str, Any]:
    """What compute-subnet calls the hardware description (compute-subnet §4).

    A part that was not measured is an empty object, as there.
    """
    speeds = facts.speeds
    gpus = facts.gpus
    return {
        "cpu": {"count": facts.cpu_cores, "frequency": facts.cpu_mhz},
        "gpu": {
            "count": len(gpus),
            "capacity": sum((gpu.vram_bytes or 0) // _MIB for gpu in gpus),
            "details": [
                {"name": gpu.name, "capacity": (gpu.vram_bytes or 0) // _MIB} for gpu in gpus
            ],
            "graphics_speed": gpus[0].clock_mhz,
            "memory_speed": gpus[0].memory_clock_mhz,
        }
        if gpus
        else {},
        "hard_disk": {
            "total": facts.disk_bytes,
            "free": facts.disk_free_bytes,
            "used": facts.disk_bytes - facts.disk_free_bytes,
            "read_speed": speeds.disk_read,
            "write_speed": speeds.disk_write,
        }
        if speeds
        else {},
        "ram": {
            "total": facts.ram_bytes,
            "available": facts.ram_available_bytes,
            "used": facts.ram_bytes - facts.ram_available_bytes,
            "free": facts.ram_free_bytes,
            "swap_total": facts.swap_bytes,
            "swap_used": facts.swap_bytes - facts.swap_free_bytes,
            "swap_free": facts.swap_free_bytes,
            "read_speed": speeds.ram_read,
            "write_speed": speeds.ram_write,
        }
        if speeds
        else {},
        "has_docker": facts.docker,
    }


def chutes_device(gpu: GpuFacts, identifier: str) -> Device:
    """What Chutes' bootstrap says of a GPU (chutes §6.1). identifier: the short ref declared.

    The bootstrap reads OpenCL, whose numbers are CUDA's. NVML's largest clock is another number,
    and never stands in for the clock rate. NVML's memory, with what the driver reserves, is in the
    accepted range of every card.
    """
    return Device(
        name=gpu.name[:64],
        memory=gpu.cuda_memory_bytes or gpu.vram_bytes,
        processors=gpu.processors,
        clock_rate=gpu.cuda_clock_khz,
        identifier=identifier,
    )


def chutes_devices(facts: Facts, identifier: str) -> list[dict[str, Any]]:
    """The body of Chutes' `GET /devices` (chutes §6.1, §6.2); null: not measured here."""
    return [
        {
            "uuid": gpu_id(gpu.uuid),
            "name": device.name,
            "memory": device.memory,
            "processors": device.processors,
            "clock_rate": device.clock_rate,
            "max_threads_per_processor": 1024,
            "device_index": gpu.index,
            "gpu_identifier": identifier,
        }
        for gpu in facts.gpus
        for device in (chutes_device(gpu, identifier),)
    ]


def gpu_id(nvml_uuid: str) -> str:
    """NVML's uuid as Chutes writes it: 32 hex digits (chutes §2); other text stays as it is."""
    try:
        return uuid.UUID(nvml_uuid.removeprefix("GPU-")).hex
    except ValueError:
        return nvml_uuid


def short_ref(gpu: GpuFacts) -> str | None:
    """The short reference a GPU's name stands for; None for a card nobody knows."""
    card = card_of(gpu.name)
    return None if card is None else card.short_ref
