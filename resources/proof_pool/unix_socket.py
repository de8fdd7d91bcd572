"""The Unix sockets of proof workers: in a folder that nobody else can enter."""

import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from windrow import WindrowError
from windrow.resources.files import PathRefused, naming_disk_errors

SUFFIX: Final = ".sock"
LIFE_SUFFIX: Final = ".life"
"""A lock of this name is held by the worker for as long as it lives."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_UCRED: Final = struct.Struct("3i")
_BACKLOG: Final = 16


class ForeignWorker(WindrowError):
    """What listens on a worker's socket belongs to another user."""


class Peer(NamedTuple):
    """Process and user at the other end of a Unix socket."""

    pid: int
    uid: int


def private_folder(folder: Path) -> Path:
    """Make the folder, mode 0700. Raises PathRefused where another user owns it, DiskFull."""
    with naming_disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PathRefused(
                f"{folder} belongs to user {folder.stat().st_uid}; proof workers listen only where "
                "nobody else can enter, set WINDROW_HOME to a folder of your own"
            )
        folder.chmod(0o700)
    return folder


def check_name(name: str) -> str:
    """The name, if it can be that of a worker's files. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r:.80} cannot name a proof worker")
    return name


@contextlib.contextmanager
def listening(folder: Path, name: str) -> Iterator[socket.socket]:
    """A listening socket in the folder; the caller sees to it that there is one at a time."""
    path = private_folder(folder) / f"{check_name(name)}{SUFFIX}"
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        with _short(folder) as short:
            listener.bind(f"{short}/{path.name}")
        listener.listen(_BACKLOG)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def connected(folder: Path, name: str) -> socket.socket | None:
    """A connection to a worker; None where none listens."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _short(folder) as short:
            connection.connect(f"{short}/{check_name(name)}{SUFFIX}")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def peer(connection: socket.socket) -> Peer:
    """Who is at the other end, by the kernel's word."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return Peer(pid, uid)


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """The folder by a short name: a socket's path has 107 bytes, a home folder may have more."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
