"""Putting a file in its place all at once, with named errors for what disks do."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from windrow import WindrowError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP})


class DiskFull(WindrowError):
    """There is no room for a file on this machine."""


class PathRefused(WindrowError):
    """The operating system does not let this process use a path."""


@contextlib.contextmanager
def naming_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused path into DiskFull or PathRefused."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(
                f"No room to write {path} ({error.strerror}). Nothing was left there; free space "
                "on that disk and run again."
            ) from error
        if error.errno in REFUSED:
            raise PathRefused(
                f"{path} cannot be used ({error.strerror}). Check that its folder is a folder "
                "this user may write to."
            ) from error
        raise


@contextlib.contextmanager
def published(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there appears as `path` at the end.

    The file is flushed to disk, then renamed: whoever opens `path` reads all of the old file or
    all of the new one, also after a crash. An exception in the block leaves no trace.

    Raises FileExistsError when `path` exists and not replace, DiskFull, PathRefused.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with naming_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            flush(temporary)
            if replace:
                temporary.replace(path)
            else:
                # A hard link, unlike a rename, refuses a name that is taken.
                path.hardlink_to(temporary)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
