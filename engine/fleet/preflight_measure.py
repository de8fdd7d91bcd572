"""A machine looked at from within: system, file systems, model cache, programs, ports, cards.

Run on the node. Nothing is judged here.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import psutil

from windrow.engine.fleet.facts import cache_folder
from windrow.engine.fleet.preflight import MOST, Asked, Cached, Measured, Mount

COMMAND_SECONDS: Final = 5.0
_PROGRAMS: Final = ("docker", "podman", "nvidia-ctk", "nvidia-smi", "kubectl", "wg", "snap")


def measure(asked: Asked) -> Measured:
    """The measurements of this machine."""
    clock, began = time.time(), time.monotonic()
    system = _os_release()
    mounts = _mounts()
    cache = cache_folder()
    persistent, ecc_errors = _card_health()
    return Measured(
        clock=clock,
        first_process=_text("/proc/1/comm") or "unknown",
        system_id=system.get("ID", "unknown"),
        system_version=system.get("VERSION_ID", ""),
        hostname=socket.gethostname()[:512],
        user_is_root=os.geteuid() == 0,
        modules_loadable=_loadable(),
        tdx=Path("/dev/tdx_guest").exists() or " tdx_guest" in (_text_lines("/proc/cpuinfo") or ""),
        snap_mount=_mount_of(Path("/var/snap"), mounts),
        largest_mount=max(mounts, key=lambda mount: mount.bytes, default=None),
        cache_path=str(cache)[:512],
        cache_writable=os.access(cache, os.W_OK),
        cache_free=psutil.disk_usage(str(cache)).free,
        models=tuple(_cached(cache, name) for name in asked.models),
        programs=tuple(name for name in _PROGRAMS if shutil.which(name)),
        compose=_said("docker", "compose", "version") is not None,
        container_gpus=_container_gpus(),
        fabric_manager=any(
            (process.info["name"] or "").startswith("nv-fabricmanage")
            for process in psutil.process_iter(["name"])
        ),
        persistent_gpus=persistent,
        ecc_errors=ecc_errors,
        xid_errors=_xid_errors(),
        ip_forward=_flag("/proc/sys/net/ipv4/ip_forward"),
        clock_synchronised=_synchronised(),
        routes=_routes(),
        listening=_listening(),
        busy_ports=tuple(port for port in asked.ports if not _can_open(port)),
        seconds=time.monotonic() - began,
    )


def _said(*command: str) -> str | None:
    """What a program prints; None where it is not there, fails or takes too long."""
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return ended.stdout if ended.returncode == 0 else None


def _loadable() -> bool | None:
    """Whether the kernel takes modules at all."""
    disabled = _flag("/proc/sys/kernel/modules_disabled")
    return None if disabled is None else not disabled


def _container_gpus() -> bool | None:
    said = _said("docker", "info", "--format", "{{json .Runtimes}}")
    return None if said is None else '"nvidia"' in said


def _card_health() -> tuple[int | None, int | None]:
    """How many cards are in persistence mode, and their uncorrected memory errors."""
    fields = "persistence_mode,ecc.errors.uncorrected.volatile.total"
    said = _said("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    if said is None:
        return None, None
    rows = [[part.strip() for part in line.split(",")] for line in said.splitlines()]
    errors = [int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()]
    modes = [row[0] for row in rows]
    told = {*modes} <= {"Enabled", "Disabled"}  # else [N/A], or a sentence instead of cards
    return modes.count("Enabled") if told else None, sum(errors) if errors else None


def _xid_errors() -> int | None:
    """Faults the driver has told the kernel of; None where its log is not for this user."""
    said = _said("dmesg")
    return None if said is None else said.count("NVRM: Xid")


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()[:512]
    except OSError:
        return None


def _flag(path: str) -> bool | None:
    text = _text(path)
    return None if text is None else text == "1"


def _os_release() -> dict[str, str]:
    lines = (_text_lines("/etc/os-release") or "").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip('"')[:512] for name, _, value in pairs}


def _text_lines(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace")[:65536]
    except OSError:
        return None


def _mounts() -> list[Mount]:
    found = []
    for part in psutil.disk_partitions(all=False):
        try:
            usage = psutil.disk_usage(part.mountpoint)
        except OSError:  # a mount this user may not look into counts for nothing here
            continue
        found.append(
            Mount(
                path=part.mountpoint[:512],
                device=part.device[:512],
                bytes=usage.total,
                free=usage.free,
            )
        )
    return found


def _mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The file system a folder lies on, if the folder is there."""
    if not path.is_dir():
        return None
    real = str(path.resolve())
    over = [m for m in mounts if real == m.path or real.startswith(m.path.rstrip("/") + "/")]
    return max(over, key=lambda mount: len(mount.path), default=None)


def _cached(cache: Path, name: str) -> Cached:
    """A model of the hub's cache; its name is only ever a folder's, never a path."""
    folder = cache / "hub" / f"models--{name.replace('/', '--')}"
    if "/" in folder.name or folder.parent != cache / "hub" or not folder.is_dir():
        return Cached(name=name, bytes=0, whole=False)
    blobs = [path for path in (folder / "blobs").glob("*") if path.is_file()]
    whole = any((folder / "snapshots").glob("*/*")) and not any(
        path.suffix == ".incomplete" for path in blobs
    )
    return Cached(name=name, bytes=sum(path.stat().st_size for path in blobs), whole=whole)


def _synchronised() -> bool | None:
    """Whether systemd or chrony keeps the clock; None where neither tells."""
    said = _said("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return {"yes": True, "no": False}.get((said or "").strip())


def _routes() -> tuple[str, ...]:
    """Networks of IPv4 routes with their interface, as `192.168.0.0/20 wg0`."""
    routes = []
    for line in (_text_lines("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7:
            network = socket.inet_ntoa(bytes.fromhex(fields[1])[::-1])
            prefix = int(fields[7], 16).bit_count()
            routes.append(f"{network}/{prefix} {fields[0]}")
    return tuple(routes[:MOST])


def _listening() -> tuple[tuple[str, int], ...]:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ()
    found = {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}
    return tuple(sorted(found)[:MOST])


def _can_open(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
