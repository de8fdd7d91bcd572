"""The machine held against the guides: clock, memory, processors, storage, system.

chutes §3.6 and §12, gonka §3, compute-subnet §12.
"""

import math
from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.preflight_looked import GIB, Looked, at_least
from windrow.networks.chutes.node_resources import needed_memory

CACHE_SPARE: Final = 20 * GIB
CHUTES_CACHE: Final = 500 * GIB


def _clock(looked: Looked) -> Iterator[NodeCheck]:
    """Signatures expire after 30 s on Chutes; Gonka wants 2 s (chutes §5, gonka §3 P07)."""
    offset = abs(looked.clock_offset)
    for network, most in (("chutes", 5.0), ("gonka", 2.0), (WINDROW, 5.0)):
        if network == WINDROW or looked.serves(network):
            passed = offset <= most
            yield NodeCheck(
                "clock",
                network,
                None if network == WINDROW else offset < 30,
                passed,
                measured=looked.clock_offset,
                needed=most,
                unit="s",
                reason="" if passed else f"the clock is off by {looked.clock_offset:.1f} s",
                remedy="" if passed else "sudo timedatectl set-ntp true",
            )
    if looked.measured.clock_synchronised is not None:
        kept = looked.measured.clock_synchronised
        yield NodeCheck(
            "clock_kept",
            WINDROW,
            None,
            kept,
            reason="" if kept else "nothing keeps the clock right",
            remedy="" if kept else "sudo apt install chrony",
        )


def _memory(looked: Looked) -> Iterator[NodeCheck]:
    """RAM per VRAM: what the guides say, and what pods really get (chutes §3.6, gonka P06)."""
    vram = sum(gpu.vram_bytes for gpu in looked.facts.gpus)
    if not vram:
        return
    ram = looked.facts.ram_bytes
    if looked.serves("chutes"):
        each = max(gpu.vram_bytes for gpu in looked.facts.gpus) // GIB
        needed = needed_memory(each, len(looked.facts.gpus)) * GIB
        yield at_least(
            "ram_per_vram",
            "chutes",
            ram >= vram,
            ram,
            needed,
            "pods would get less memory than their GPU has",
            f"add memory: {math.ceil(needed / GIB)} GiB in all",
        )
    if looked.serves("gonka"):
        yield at_least(
            "ram_per_vram",
            "gonka",
            None,
            ram,
            1.5 * vram,
            "less than one and a half times the GPUs' memory",
            f"add memory: {math.ceil(1.5 * vram / GIB)} GiB in all",
        )


def _processors(looked: Looked) -> Iterator[NodeCheck]:
    for network, least in (("gonka", 16), ("compute-subnet", 4)):
        if looked.serves(network):
            yield at_least(
                "cpu_cores",
                network,
                None,
                looked.facts.cpu_threads,
                least,
                f"fewer processors than {network} asks for",
                "rent a machine with more processors",
                "processors",
            )


def _storage(looked: Looked) -> Iterator[NodeCheck]:
    """Models are kept under /var/snap on Chutes, and the hub's cache elsewhere (chutes §12.4)."""
    measured = looked.measured
    if looked.serves("chutes"):
        snap, largest = measured.snap_mount, measured.largest_mount
        best = largest is None or (snap is not None and snap.bytes >= largest.bytes)
        there = "nothing" if snap is None else f"{snap.device} of {snap.bytes // GIB} GiB"
        yield NodeCheck(
            "storage_path",
            "chutes",
            None,
            best,
            measured=float(snap.bytes if snap else 0),
            needed=float(largest.bytes if largest else 0),
            unit="bytes",
            reason="" if best else f"/var/snap lies on {there}, not on the largest volume",
            remedy=""
            if best or largest is None
            else f"sudo mount --bind {largest.path} /var/snap, and the same in /etc/fstab",
        )
        yield at_least(
            "storage_size",
            "chutes",
            None,
            snap.bytes if snap else 0,
            CHUTES_CACHE + CACHE_SPARE,
            "too small for the model cache, images and 20 GiB to spare",
            "mount a larger volume at /var/snap, or lower cache.max_size_gb",
        )
    writable = measured.cache_writable
    yield NodeCheck(
        "cache_writable",
        WINDROW,
        None,
        writable,
        reason="" if writable else f"{measured.cache_path} cannot be written to",
        remedy="" if writable else f"sudo chown -R $USER {measured.cache_path}",
    )
    for model in measured.models:
        yield NodeCheck(
            "model_cached",
            "gonka" if looked.serves("gonka") else WINDROW,
            None,
            model.whole,
            measured=float(model.bytes),
            unit="bytes",
            reason="" if model.whole else f"{model.name} is not in the cache, or not all of it",
            remedy="" if model.whole else f"hf download {model.name}",
        )


def _system(looked: Looked) -> Iterator[NodeCheck]:
    measured = looked.measured
    if looked.serves("chutes"):
        own = measured.first_process == "systemd" and looked.facts.container is None
        yield NodeCheck(
            "own_machine",
            "chutes",
            None,
            own,
            reason="" if own else f"process 1 is {measured.first_process}: this is a container",
            remedy="" if own else "rent bare metal or a whole virtual machine",
        )
        ubuntu = (measured.system_id, measured.system_version) == ("ubuntu", "22.04")
        yield NodeCheck(
            "operating_system",
            "chutes",
            None,
            ubuntu,
            reason=""
            if ubuntu
            else f"{measured.system_id} {measured.system_version}; the playbooks are for 22.04",
            remedy="" if ubuntu else "install Ubuntu 22.04",
        )
        same = measured.hostname == looked.node.name and "." not in measured.hostname
        yield NodeCheck(
            "node_name",
            "chutes",
            None,
            same,
            reason="" if same else f"the machine calls itself {measured.hostname!r}",
            remedy="" if same else f"sudo hostnamectl set-hostname {looked.node.name}",
        )
    for network, programs in (
        ("gonka", ("docker", "nvidia-ctk")),
        ("compute-subnet", ("docker", "nvidia-ctk")),
        ("compute-horde", ("docker", "nvidia-ctk")),
    ):
        if looked.serves(network) and looked.node.gpu is not None:
            gone = [name for name in programs if name not in measured.programs]
            yield NodeCheck(
                "container_runtime",
                network,
                None,
                not gone,
                reason="" if not gone else f"{', '.join(gone)} is not installed",
                remedy=""
                if not gone
                else "install docker and nvidia-container-toolkit; nvidia-ctk runtime configure",
            )


RULES: Final = (
    _clock,
    _memory,
    _processors,
    _storage,
    _system,
)
