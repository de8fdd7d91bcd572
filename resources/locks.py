"""Locks between processes: advisory, on a file, gone with the process that holds them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from windrow.resources.files import naming_disk_errors

_held: set[int] = set()


def _close_in_child() -> None:
    # A forked child shares its parent's locks; left open there, they would outlive the parent.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def file_lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[int]:
    """Hold a lock on a file, made when missing; yields its descriptor, open to read and write.

    Also excludes threads of this process. Raises BlockingIOError when not wait and it is taken,
    DiskFull, PathRefused.
    """
    with naming_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    owner = os.getpid()
    try:
        fcntl.flock(
            descriptor,
            (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB),
        )
        yield descriptor
    finally:
        # A child forked inside the block unwinds too, with its copy closed already.
        if os.getpid() == owner:
            _held.discard(descriptor)
            os.close(descriptor)
