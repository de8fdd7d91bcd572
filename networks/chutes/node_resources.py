"""What a Kubernetes node gives each of its GPUs, and the names Chutes derives (§2, §3.6, §6.3)."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SPARE_CPUS: Final = 2
SPARE_MEMORY: Final = 6
SPARE_DISK: Final = 20
MAIN_VALIDATOR: Final = "5Dt7HZ7Zpw4DppPxFM7Ke3Cm7sDAWhsZXmM5ZAmE7dSVJbcQ"
UNREADABLE_DISK: Final = 100
"""GiB a node is taken to have whose size is written in another unit."""


@dataclass(frozen=True)
class NodeResources:
    """Whole processors and GiB for each GPU; disk in GiB."""

    cpu_per_gpu: int
    memory_per_gpu: int
    disk_total: float
    disk_used: float
    disk_available: float


def node_resources(
    *,
    cpus: int,
    memory: str,
    gpus: int,
    gpu_memory_mib: int | None,
    disk: str,
    requests: Iterable[tuple[str, str | None]],
) -> NodeResources:
    """Resources of a node, from what Kubernetes says (§3.6).

    memory, disk: capacities with their unit. gpu_memory_mib: the label `nvidia.com/gpu.memory`.
    requests: phase of every pod, and the ephemeral storage it asks for.
    """
    free_cpus = cpus - SPARE_CPUS
    free_memory = _whole_gib(memory) - SPARE_MEMORY
    vram = (32 if gpu_memory_mib is None else gpu_memory_mib) // 1024
    total = _disk_gib(disk)
    used = sum(
        _disk_gib(size) for phase, size in requests if size and phase in {"Running", "Pending"}
    )
    return NodeResources(
        cpu_per_gpu=1 if free_cpus <= gpus else min(4, free_cpus // gpus),
        memory_per_gpu=1 if free_memory <= gpus else min(vram, int(0.8 * free_memory / gpus)),
        disk_total=total,
        disk_used=used,
        disk_available=max(0.0, total - used - SPARE_DISK),
    )


def needed_memory(vram: int, gpus: int) -> float:
    """GiB of RAM a node needs so that a pod gets as much as each GPU has, vram GiB (§3.6)."""
    return vram * gpus / 0.8 + SPARE_MEMORY


def _whole_gib(size: str) -> int:
    number, unit = _split(size)
    return int(number / {"Ki": 1024**2, "Mi": 1024, "Gi": 1}.get(unit, 1024**3))


def _disk_gib(size: str) -> float:
    number, unit = _split(size)
    # The network reads decimal suffixes as if they were binary.
    scale = {"Ki": 1024**2, "Mi": 1024, "M": 1024, "Gi": 1, "G": 1}.get(unit)
    return UNREADABLE_DISK if scale is None else number / scale


def _split(size: str) -> tuple[float, str]:
    digits = size.rstrip("KMGTPEkimgtpe")
    return float(digits), size[len(digits) :]


def code_config_map(chute_id: str, version: str) -> str:
    """Name of the ConfigMap that holds a chute's code (§2)."""
    return f"chute-code-{uuid.uuid5(uuid.NAMESPACE_OID, f'{chute_id}::{version}')}"


def visible_device(gpu_id: str) -> str:
    """A GPU id of 32 hex digits as the container runtime names it (§2)."""
    return f"GPU-{uuid.UUID(gpu_id)}"


def address_token(ip: str, deployment_salt: str, request_salt: str | None) -> str:
    """Token that tells which address a request came from (§6.3)."""
    parts = [ip, deployment_salt, *([] if request_salt is None else [request_salt])]
    return str(uuid.uuid5(uuid.NAMESPACE_OID, ":".join(parts)))


def registry_host(validator: str) -> str:
    """The host name a node pulls a validator's images from; it leads to the node itself (§2)."""
    return f"{validator.lower()}.localregistry.chutes.ai"


def image_reference(validator: str, port: int, image: str) -> str:
    """An image as a node pulls it, through the registry proxy beside it (§2)."""
    return f"{registry_host(validator)}:{port}/{image}"
