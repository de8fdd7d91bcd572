"""A lock for creating objects on servers that cannot create an object on a condition.

It is for the processes of one user of this machine, whatever home folder they have. Nothing keeps
another machine from creating the same object between look-up and upload.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from windrow.resources.files import PathRefused, naming_disk_errors
from windrow.resources.locks import file_lock

_LOCKS: Final = 64
"""Lock files in all, so that none is left for every key; two keys may share one."""
_LOOK_AGAIN: Final = 0.05


class CreationLockTaken(Exception):
    """Another process holds the lock for longer than one could wait."""


@contextlib.contextmanager
def creation_lock(place: str, seconds: float) -> Iterator[None]:
    """Hold the lock of a place, such as endpoint, bucket and key in one text.

    Raises CreationLockTaken after so many seconds, PathRefused, DiskFull.
    """
    number = int.from_bytes(hashlib.sha256(place.encode()).digest()[:4]) % _LOCKS
    path, until = _folder() / f"create-{number:02d}.lock", time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(file_lock(path, wait=False))
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise CreationLockTaken(str(path)) from None
                time.sleep(_LOOK_AGAIN)
        yield


def _folder() -> Path:
    """This user's folder of locks. Raises PathRefused for one that another user has made."""
    folder = Path(tempfile.gettempdir()) / f"windrow-{os.getuid()}"
    with naming_disk_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PathRefused(
            f"{folder} is not a folder of this user. Remove it, or set TMPDIR to a folder of "
            "your own."
        )
    return folder
