"""The machine held against the guides: clock, memory, processors, storage, system.

chutes §3.6 and §12, gonka §3, compute-subnet §12.
"""

import math
from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.preflight_looked import GIB, Looked, at_least
from windrow.engine.fleet.remedies import bind_snap, download, install, rename_host
from windrow.networks.chutes.node_resources import needed_memory

CACHE_SPARE: Final = 20 * GIB
CHUTES_CACHE: Final = 500 * GIB
NETWORK_NODE_DISK: Final = 10**12
"""Bytes of NVMe that Gonka's network node wants (gonka §3 P06)."""
COLD_START_SPEED: Final = 500.0
"""MB/s: a disk below it makes a cold start of 100 GB of weights last longer than three minutes."""


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
                remedy=""
                if passed
                else "sudo timedatectl set-ntp true. If it says that NTP is not supported: "
                + install("chrony", looked.measured.system_id),
            )
    if looked.measured.clock_synchronised is not None:
        kept = looked.measured.clock_synchronised
        yield NodeCheck(
            "clock_kept",
            WINDROW,
            None,
            kept,
            reason="" if kept else "no NTP service keeps the clock right",
            remedy="" if kept else install("chrony", looked.measured.system_id),
        )


def _memory(looked: Looked) -> Iterator[NodeCheck]:
    """RAM per VRAM: what the guides say, and what pods really get (chutes §3.6, gonka P06)."""
    sizes = [gpu.vram_bytes for gpu in looked.facts.gpus if gpu.vram_bytes is not None]
    vram = sum(sizes)
    if not vram:
        return
    ram = looked.facts.ram_bytes
    if looked.serves("chutes"):
        each = max(sizes) // GIB
        needed = needed_memory(each, len(looked.facts.gpus)) * GIB
        yield at_least(
            "ram_per_vram",
            "chutes",
            ram >= vram,
            ram,
            needed,
            "pods would get less memory than their GPU has",
            f"Add memory: {math.ceil(needed / GIB)} GiB in all",
        )
    if looked.serves("gonka"):
        yield at_least(
            "ram_per_vram",
            "gonka",
            None,
            ram,
            1.5 * vram,
            "less than one and a half times the GPUs' memory",
            f"Add memory: {math.ceil(1.5 * vram / GIB)} GiB in all",
        )


def _processors(looked: Looked) -> Iterator[NodeCheck]:
    """Processors, and what a node of Chutes without GPUs is for (chutes §12.10, gonka P06)."""
    alone = looked.serves("chutes") and looked.node.gpu is None
    if alone:
        yield at_least(
            "cpu_node_memory",
            "chutes",
            None,
            looked.facts.ram_bytes,
            64 * 10**9,
            "less memory than the node that runs the miner's own services needs",
            "Rent a machine with 64 GB",
        )
    for network, least in (("chutes", 8), ("gonka", 16), ("compute-subnet", 4)):
        if looked.serves(network) and (network != "chutes" or alone):
            yield at_least(
                "cpu_cores",
                network,
                None,
                looked.facts.cpu_threads,
                least,
                f"fewer processors than {network} asks for",
                "Rent a machine with more processors",
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
            else bind_snap(largest.path, snap is not None and snap.path == "/var/snap"),
        )
        yield at_least(
            "storage_size",
            "chutes",
            None,
            snap.bytes if snap else 0,
            CHUTES_CACHE + CACHE_SPARE,
            "too small for the model cache, images and 20 GiB to spare",
            "Copy /var/snap to a larger volume while microk8s is stopped and bind it there, or "
            "lower cache.max_size_gb. A mount without the copy hides microk8s' data",
        )
    if looked.serves("gonka") and looked.node.gpu is None:
        yield at_least(
            "storage_size",
            "gonka",
            None,
            looked.facts.disk_bytes,
            NETWORK_NODE_DISK,
            "too small for a network node's chain",
            "Move the chain's folder to a volume of 1 TB of NVMe while the node is stopped",
        )
    if looked.facts.speeds is not None:
        yield at_least(
            "disk_speed",
            WINDROW,
            None,
            looked.facts.speeds.disk_read,
            COLD_START_SPEED,
            "models load slowly from this disk",
            "Keep models on NVMe: set HF_HOME to a folder there",
            "MB/s",
        )
    writable = measured.cache_writable
    yield NodeCheck(
        "cache_writable",
        WINDROW,
        None,
        writable,
        reason="" if writable else f"{measured.cache_path} cannot be written to",
        remedy=""
        if writable
        else "Set HF_HOME to a folder that the user who runs the models can write to. Do not "
        "change the owner of a folder that the system or another user needs",
    )
    declared = {model.name for model in looked.node.models}
    for model in measured.models:
        if model.name not in declared:
            continue  # the node was not asked for it
        yield NodeCheck(
            "model_cached",
            "gonka" if looked.serves("gonka") else WINDROW,
            None,
            model.whole,
            measured=float(model.bytes),
            unit="bytes",
            reason="" if model.whole else f"{model.name} is not in the cache, or not all of it",
            remedy="" if model.whole else download(model.name, measured.cache_path),
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
            remedy="" if own else "Rent bare metal or a whole virtual machine",
        )
        loads = measured.modules_loadable is not False and "snap" in measured.programs
        yield NodeCheck(
            "snap_and_modules",
            "chutes",
            None,
            loads,
            reason="" if loads else "snap is not installed, or the kernel takes no modules",
            remedy=""
            if loads
            else install("snapd", measured.system_id)
            + ", on bare metal or a whole virtual machine",
        )
        yield NodeCheck(
            "confidential_guest",
            "chutes",
            measured.tdx,
            True if measured.tdx else None,
            reason=""
            if measured.tdx
            else "no Intel TDX guest; since 2026 the network takes no others, before it took any",
            remedy="" if measured.tdx else "Rent a TDX machine, and run the network's image on it",
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
            remedy=""
            if ubuntu
            else "Rent a machine with Ubuntu 22.04. To install it deletes what is on the disk",
        )
        same = measured.hostname == looked.node.name and "." not in measured.hostname
        yield NodeCheck(
            "node_name",
            "chutes",
            None,
            same,
            reason="" if same else f"the machine calls itself {measured.hostname!r}",
            remedy="" if same else rename_host(looked.node.name),
        )


def _containers(looked: Looked) -> Iterator[NodeCheck]:
    """Docker, its compose and NVIDIA's runtime in it (gonka §3 P01)."""
    measured = looked.measured
    for network in ("gonka", "compute-subnet", "compute-horde"):
        if looked.serves(network) and looked.node.gpu is not None:
            gone = [name for name in ("docker", "nvidia-ctk") if name not in measured.programs]
            if network == "gonka" and not measured.compose:
                gone.append("docker compose")
            if measured.container_gpus is False:
                gone.append("NVIDIA's runtime in docker")
            yield NodeCheck(
                "container_runtime",
                network,
                None,
                not gone,
                reason="" if not gone else f"{', '.join(gone)} is not installed",
                remedy=""
                if not gone
                else "Install docker and nvidia-container-toolkit, then: sudo nvidia-ctk runtime "
                "configure --runtime=docker && sudo systemctl restart docker. The restart stops "
                "running containers",
            )


RULES: Final = (
    _clock,
    _memory,
    _processors,
    _storage,
    _system,
    _containers,
)
