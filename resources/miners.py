"""The miners of a subnet, and what each of them uploaded for a window."""

import gzip
import io
import zlib
from dataclasses import dataclass
from typing import Protocol

from windrow import WindrowError
from windrow.networks.grail.bucket import WINDOWS_PREFIX, parse_window_file_key, window_file_key
from windrow.networks.grail.constants import MAX_FILE_BYTES
from windrow.networks.grail.validation.uploads import (
    GZIP_SUFFIX,
    ObjectHead,
    Upload,
    candidate_keys,
    decide_upload,
)
from windrow.resources.storage.object_store import ObjectInfo, ObjectStore


class UploadChanged(WindrowError):
    """An object is not the one that was found in time."""


class UploadTooLarge(WindrowError):
    """A compressed upload holds more than a window file may."""


@dataclass(frozen=True)
class FoundUpload:
    """A miner's upload. info: the object that decided, None where there is none."""

    upload: Upload
    info: ObjectInfo | None


class Miners(Protocol):
    """Who mines, in the order of their numbers on the subnet: the place in the list is the uid."""

    def hotkeys(self) -> list[str]:
        """SS58 addresses; the first is the trainer's, to whom shares are burnt."""
        ...

    def find(self, hotkey: str, window: int, deadline: float) -> FoundUpload:
        """Whether a miner's file is there in time (grail-validation §3.2)."""
        ...

    def fetch(self, hotkey: str, found: FoundUpload) -> bytes:
        """The file's bytes. Raises UploadChanged, UploadTooLarge, ObjectStoreError."""
        ...


class SharedBucket:
    """The embedded network's miners: whoever has a file in the one bucket there is."""

    def __init__(self, bucket: ObjectStore, trainer: str) -> None:
        self._bucket = bucket
        self._trainer = trainer

    def hotkeys(self) -> list[str]:
        """The trainer, then every miner by its first upload."""
        first: dict[str, tuple[int, str]] = {}
        for info in self._bucket.list(WINDOWS_PREFIX):
            if named := parse_window_file_key(info.key.removesuffix(GZIP_SUFFIX)):
                hotkey, window = named
                first[hotkey] = min(first.get(hotkey, (window, hotkey)), (window, hotkey))
        return [self._trainer, *sorted(first.keys() - {self._trainer}, key=first.__getitem__)]

    def find(self, hotkey: str, window: int, deadline: float) -> FoundUpload:
        infos = {
            key: info
            for key in candidate_keys(window_file_key(hotkey, window))
            if (info := self._bucket.head(key)) is not None
        }
        heads = {key: ObjectHead(info.size, info.last_modified) for key, info in infos.items()}
        upload = decide_upload(window_file_key(hotkey, window), heads, deadline)
        return FoundUpload(upload, infos.get(upload.key) if upload.key else None)

    def fetch(self, hotkey: str, found: FoundUpload) -> bytes:
        if found.info is None:
            raise UploadChanged(f"{hotkey} has no upload to fetch")
        data = self._bucket.get(found.info.key, max_bytes=MAX_FILE_BYTES)
        now = self._bucket.head(found.info.key)
        if now is None or (now.etag, now.last_modified) != (
            found.info.etag,
            found.info.last_modified,
        ):
            raise UploadChanged(
                f"{found.info.key} was replaced while it was fetched; what is there now came after "
                "the deadline check"
            )
        return inflated(data, found.info.key) if found.info.key.endswith(GZIP_SUFFIX) else data


def inflated(data: bytes, key: str) -> bytes:
    """A gzip object's content, never more than a window file may have.

    Raises UploadChanged, UploadTooLarge.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UploadChanged(f"{key} is not gzip: {error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UploadTooLarge(f"{key} inflates to more than {MAX_FILE_BYTES} bytes")
    return content
