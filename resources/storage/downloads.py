"""A file that an object is fetched into: it appears whole, and a fetch that failed can go on."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from windrow.resources.files import flush, naming_disk_errors

PART = ".part"


@contextlib.contextmanager
def downloading(path: Path, version: str, size: int, *, resume: bool) -> Iterator[BinaryIO]:
    """A file to append an object's bytes to, at the end of what is there; it becomes ``path``.

    version: says which object it is; bytes of another one are never gone on from.
    resume: leave what there is when the block fails, unless the disk does. One process at a time
    may work at a path then.
    Raises DiskFull, PathRefused.
    """
    token = secrets.token_hex(12)
    if resume:
        token = hashlib.sha256(f"{path.name}\n{version}\n{size}".encode()).hexdigest()[:24]
    part = path.with_name(f".{token}{PART}")
    with naming_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("ab") as file:
                if file.tell() > size:
                    file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        except BaseException:
            if not resume:
                part.unlink(missing_ok=True)
            raise
        flush(path.parent)


def parts(folder: Path) -> Iterator[Path]:
    """Half-fetched files below a folder."""
    return folder.rglob(f".*{PART}")
