"""Objects in a bucket: whole or absent, never half. One class over any obstore store."""

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore
from obstore.store import ObjectStore as ObstoreStore

from windrow import WindrowError
from windrow.resources.files import FULL, REFUSED, naming_disk_errors, published
from windrow.resources.setting_values import bucket as bucket_path

MAX_KEY_BYTES = 1024
# A file name holds 255 bytes, and a folder bucket adds "#<n>" while it writes.
MAX_SEGMENT_BYTES = 240
_SEGMENT = re.compile(rf"[A-Za-z0-9_.=@+,:~!$&'() -]{{1,{MAX_SEGMENT_BYTES}}}", re.ASCII)

STREAM_BYTES = 8 * 1024 * 1024


class ObjectStoreError(WindrowError):
    """A bucket did not do what was asked."""


class InvalidKey(ObjectStoreError):
    """A key that could leave the bucket, or that some store cannot hold."""


class ObjectMissing(ObjectStoreError):
    """No object has this key."""


class ObjectExists(ObjectStoreError):
    """A conditional create found an object already there."""


class ObjectTooLarge(ObjectStoreError):
    """An object is larger than the reader allows."""


class BucketRefused(ObjectStoreError):
    """The bucket does not allow the operation: credentials, permissions or read-only."""


class BucketFull(ObjectStoreError):
    """The bucket has no room left."""


class BucketUnavailable(ObjectStoreError):
    """The bucket cannot be reached or failed in a way that has no name of its own."""


@dataclass(frozen=True)
class ObjectInfo:
    """size in bytes; last_modified in unix seconds, by the bucket's own clock."""

    key: str
    size: int
    last_modified: float
    etag: str | None


class ObjectStore(Protocol):
    """A bucket. Every method raises a subclass of ObjectStoreError; a key is checked first."""

    def put(self, key: str, data: bytes, *, create: bool = False) -> ObjectInfo:
        """Store bytes; with create, raise ObjectExists rather than replace an object."""
        ...

    def put_file(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """As put, from a file, without reading it into memory."""
        ...

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The whole object. Raises ObjectTooLarge before reading more than max_bytes."""
        ...

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> ObjectInfo:
        """Stream the object into a file that appears whole; an older file there is replaced."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, or None."""
        ...

    def list(self, prefix: str = "", *, start_after: str = "") -> list[ObjectInfo]:
        """Objects whose key starts with prefix and sorts after start_after, sorted by key."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...


def check_key(key: str) -> str:
    """A key that means the same in every store. Raises InvalidKey.

    Segments joined by "/", of ASCII letters, digits and ``_.=@+,:~!$&'() -``; none is "." or "..".
    """
    segments = key.split("/")
    if len(key) > MAX_KEY_BYTES or not all(
        _SEGMENT.fullmatch(segment) and segment not in {".", ".."} for segment in segments
    ):
        raise InvalidKey(
            f"{key[:100]!a} is not an object key: use segments joined by '/', none empty, "
            f"'.' or '..', of letters, digits and _.=@+,:~!$&'() -, {MAX_KEY_BYTES} bytes in all."
        )
    return key


class Bucket:
    """An ObjectStore over any obstore store: a folder today, S3 by handing in an S3Store."""

    def __init__(self, store: ObstoreStore, name: str) -> None:
        """name says in errors which bucket it is; it must hold no credential."""
        self._store = store
        self.name = name

    def __repr__(self) -> str:
        return f"Bucket({self.name!r})"

    def put(self, key: str, data: bytes, *, create: bool = False) -> ObjectInfo:
        return self._put(check_key(key), data, create)

    def put_file(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        check_key(key)
        with contextlib.ExitStack() as stack:
            with naming_disk_errors(path):
                file = stack.enter_context(path.open("rb"))
            content: Any = path
            if create:
                # obstore reads the file of a conditional put whole; a map takes no memory.
                empty = os.fstat(file.fileno()).st_size == 0
                content = (
                    b""
                    if empty
                    else stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                )
            return self._put(key, content, create)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        with self._errors("read", check_key(key)):
            result = obstore.get(self._store, key)
            self._check_size(key, result.meta["size"], max_bytes)
            return bytes(result.bytes())

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> ObjectInfo:
        with self._errors("read", check_key(key)):
            result = obstore.get(self._store, key)
        info = _info(result.meta)
        self._check_size(key, info.size, max_bytes)
        with published(path, replace=True) as temporary, temporary.open("wb") as file:
            chunks = iter(result.stream(min_chunk_size=STREAM_BYTES))
            while True:
                with self._errors("read", key):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                file.write(chunk)
            if file.tell() != info.size:
                raise BucketUnavailable(
                    f"{self.name}/{key} ended after {file.tell()} of {info.size} bytes. Fetch it "
                    "again."
                )
        return info

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._errors("look up", check_key(key)):
                return _info(obstore.head(self._store, key))
        except ObjectMissing:
            return None

    def list(self, prefix: str = "", *, start_after: str = "") -> list[ObjectInfo]:
        # A store matches whole segments; the rest of the prefix is matched here.
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        with self._errors("list", prefix):
            pages = obstore.list(
                self._store, folder or None, offset=start_after or None, chunk_size=1000
            )
            found = [_info(meta) for page in pages for meta in page]
        return sorted(
            (info for info in found if info.key.startswith(prefix) and info.key > start_after),
            key=lambda info: info.key,
        )

    def delete(self, key: str) -> None:
        with contextlib.suppress(ObjectMissing), self._errors("delete", check_key(key)):
            obstore.delete(self._store, key)

    def _put(self, key: str, content: Any, create: bool) -> ObjectInfo:
        with self._errors("write", key):
            obstore.put(self._store, key, content, mode="create" if create else "overwrite")
            return _info(obstore.head(self._store, key))

    def _check_size(self, key: str, size: int, max_bytes: int | None) -> None:
        if max_bytes is not None and size > max_bytes:
            raise ObjectTooLarge(
                f"{self.name}/{key} has {size} bytes, more than the {max_bytes} allowed here."
            )

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            self._raise_named(verb, key, error)

    def _raise_named(self, verb: str, key: str, error: BaseError | OSError) -> NoReturn:
        where = f"Cannot {verb} {self.name}/{key}"
        reason = str(error).partition("\n")[0]
        # obstore keeps the system's error number only in its text.
        number = re.search(r"\(os error (\d+)\)", reason)
        code = int(number[1]) if number else None
        if isinstance(error, AlreadyExistsError):
            raise ObjectExists(f"{where}: an object is already there.") from error
        if isinstance(error, FileNotFoundError):
            raise ObjectMissing(f"{where}: no such object.") from error
        if code in FULL:
            raise BucketFull(
                f"{where}: the bucket is full ({reason}). Nothing was stored; make room and run "
                "again."
            ) from error
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or code in REFUSED:
            raise BucketRefused(
                f"{where}: the bucket refuses it ({reason}). Check its permissions or credentials."
            ) from error
        raise BucketUnavailable(f"{where}: {reason}. Check that the bucket is there.") from error


def open_bucket(location: str | Path) -> Bucket:
    """The bucket at a folder or a file:// URL; the folder is made when missing.

    Raises ObjectStoreError for any other URL (s3:// is not supported yet), BucketRefused when the
    folder cannot be made.
    """
    try:
        folder = Path(bucket_path(str(location)))
    except ValueError as error:
        raise ObjectStoreError(f"{location} is not a bucket Windrow can open: {error}.") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store = LocalStore(folder)
    except (OSError, BaseError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise BucketFull(
                f"Cannot make the bucket folder {folder}: the disk is full."
            ) from error
        raise BucketRefused(
            f"Cannot open the bucket folder {folder} ({error}). Name a folder this user may use."
        ) from error
    return Bucket(store, str(folder))


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(
        meta["path"], meta["size"], meta["last_modified"].timestamp(), meta.get("e_tag")
    )
