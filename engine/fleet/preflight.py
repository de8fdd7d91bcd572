"""What only the machine itself can see before it is rented out, measured on the machine.

It measures and judges nothing: `preflight_rules` holds the numbers against each network's rules.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from windrow import WindrowError
from windrow.engine.fleet.facts import cache_folder
from windrow.engine.fleet.frames import BadFrame, from_json, to_json
from windrow.engine.fleet.tasks import BadRequest

MAX_ANSWER: Final = 1 << 20
MOST: Final = 1000
FETCH_SECONDS: Final = 15.0

Text = Annotated[str, Field(max_length=512)]
Port = Annotated[int, Field(ge=1, le=65535)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]


class BadMeasurement(WindrowError):
    """A node's measurements have no sound form."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Asked(_Strict):
    """What to measure. ports: to try to open; models: to look for in the cache, as `org/name`.

    registry: host name whose address is asked for. callback: URL that tells the address it is
    fetched from.
    """

    ports: Annotated[tuple[Port, ...], Field(max_length=MOST, strict=False)] = ()
    models: Annotated[tuple[Text, ...], Field(max_length=64, strict=False)] = ()
    registry: Text | None = None
    callback: Text | None = None


class Mount(_Strict):
    """A file system: where, of what size, and how much is free."""

    path: Text
    device: Text
    bytes: Bytes
    free: Bytes


class Cached(_Strict):
    """A model in the cache. whole: a snapshot is there and no file of it is still downloading."""

    name: Text
    bytes: Bytes
    whole: bool


class Measured(_Strict):
    """What was measured. clock: unix seconds; listening: address and port; routes: networks."""

    clock: Annotated[float, Field(ge=0, le=1e12)]
    first_process: Text
    system_id: Text
    system_version: Text
    hostname: Text
    user_is_root: bool
    snap_mount: Mount | None
    largest_mount: Mount | None
    cache_path: Text
    cache_writable: bool
    cache_free: Bytes
    models: Annotated[tuple[Cached, ...], Field(max_length=64, strict=False)]
    programs: Annotated[tuple[Text, ...], Field(max_length=32, strict=False)]
    ip_forward: bool | None
    clock_synchronised: bool | None
    routes: Annotated[tuple[Text, ...], Field(max_length=MOST, strict=False)]
    listening: Annotated[tuple[tuple[Text, Port], ...], Field(max_length=MOST, strict=False)]
    busy_ports: Annotated[tuple[Port, ...], Field(max_length=MOST, strict=False)]
    registry_address: Text | None
    callback_answer: Text | None


def challenge(asked: Asked) -> bytes:
    """The request."""
    return to_json(asked.model_dump(mode="json"))


def answer(request: bytes) -> bytes:
    """Measure, on the machine. Raises BadRequest."""
    try:
        asked = Asked.model_validate(from_json(request, max_bytes=MAX_ANSWER))
    except (BadFrame, ValidationError) as error:
        raise BadRequest(f"no preflight request: {str(error)[:300]}") from error
    return to_json(measure(asked).model_dump(mode="json"))


def parse(data: bytes) -> Measured:
    """Measurements from a node. Raises BadMeasurement."""
    try:
        fields = from_json(data, max_bytes=MAX_ANSWER)
        for pair in fields.get("listening", []):
            if not isinstance(pair, list):
                raise BadMeasurement("listening ports come without their addresses")
        listening = [tuple(pair) for pair in fields.get("listening", [])]
        return Measured.model_validate(fields | {"listening": listening})
    except (BadFrame, ValidationError, TypeError) as error:
        raise BadMeasurement(f"measurements of another form: {str(error)[:300]}") from error


def measure(asked: Asked) -> Measured:
    """The measurements of this machine."""
    system = _os_release()
    mounts = _mounts()
    cache = cache_folder()
    return Measured(
        clock=time.time(),
        first_process=_text("/proc/1/comm") or "unknown",
        system_id=system.get("ID", "unknown"),
        system_version=system.get("VERSION_ID", ""),
        hostname=socket.gethostname()[:512],
        user_is_root=os.geteuid() == 0,
        snap_mount=_mount_of(Path("/var/snap"), mounts),
        largest_mount=max(mounts, key=lambda mount: mount.bytes, default=None),
        cache_path=str(cache)[:512],
        cache_writable=os.access(cache, os.W_OK),
        cache_free=psutil.disk_usage(str(cache)).free,
        models=tuple(_cached(cache, name) for name in asked.models),
        programs=tuple(name for name in _PROGRAMS if _is_there(name)),
        ip_forward=_flag("/proc/sys/net/ipv4/ip_forward"),
        clock_synchronised=_synchronised(),
        routes=_routes(),
        listening=_listening(),
        busy_ports=tuple(port for port in asked.ports if not _can_open(port)),
        registry_address=_resolved(asked.registry),
        callback_answer=_fetched(asked.callback),
    )


_PROGRAMS: Final = ("docker", "podman", "nvidia-ctk", "nvidia-smi", "kubectl", "wg", "snap")


def _is_there(name: str) -> bool:
    import shutil

    return shutil.which(name) is not None


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
    try:
        said = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(said.stdout.strip())


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


def _resolved(host: str | None) -> str | None:
    if host is None:
        return None
    try:
        return socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _fetched(url: str | None) -> str | None:
    """What a URL answers, a few bytes of it; None where it cannot be fetched."""
    if url is None or urlsplit(url).scheme not in {"http", "https"}:
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(url, timeout=FETCH_SECONDS) as response:
            said: bytes = response.read(512)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return said.decode(errors="replace")
