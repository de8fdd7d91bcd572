"""Half-done checkpoints beside the cache: filled out of sight, taken up again after a failure."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from windrow.resources.checkpoints.files import file_sha256
from windrow.resources.storage.downloads import parts
from windrow.resources.storage.objects import ObjectStoreError


def partial_path(place: Path) -> Path:
    """A new name beside a checkpoint's folder that says which process works there."""
    return place.with_name(f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


@contextlib.contextmanager
def filling(place: Path) -> Iterator[Path]:
    """A new folder to fill and rename to ``place``.

    When the bucket fails midway or the process is told to stop, what was fetched stays for
    ``take_up``; otherwise, as when a file is damaged or the disk is full, nothing does.
    """
    partial = partial_path(place)
    partial.mkdir()
    try:
        yield partial
    except BaseException as error:
        if isinstance(error, ObjectStoreError) or not isinstance(error, Exception):
            partial.rename(place.with_name(f"{place.name}.kept.{secrets.token_hex(4)}.partial"))
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def take_up(place: Path, wanted: Mapping[str, str], partial: Path) -> None:
    """Move what earlier attempts at ``place`` fetched into this one, and delete the rest.

    wanted: SHA-256 hex by relative name; a whole file of any other content is fetched again. Of a
    half-fetched one the rest is, where the object is still the same.
    """
    for old in place.parent.glob(f"{place.name}.*.partial"):
        if not abandoned(old):
            continue
        for name, digest in wanted.items():
            found = old / name
            # Another process may take the same file up; each gets it or fetches it.
            with contextlib.suppress(FileNotFoundError):
                if found.is_file() and file_sha256(found) == digest:
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    found.rename(partial / name)
        for part in list(parts(old)):
            target = partial / part.relative_to(old)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                part.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def drop_parts(partial: Path) -> None:
    """Delete half-fetched files, for a folder all of whose files are there."""
    for part in list(parts(partial)):
        part.unlink()


def abandoned(partial: Path) -> bool:
    """Whether no process works in a partial folder any more."""
    owner = partial.name.split(".")[1]
    return not (owner.isdigit() and psutil.pid_exists(int(owner)))
