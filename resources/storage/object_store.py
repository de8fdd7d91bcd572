"""Objects in a bucket: whole or absent, never half. One class over any obstore store."""

import contextlib
import mmap
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore
from obstore.store import ObjectStore as ObstoreStore

from windrow.networks.s3_answers import Answer, Meaning, clock_words, read_answer
from windrow.resources.configuration.values import bucket as bucket_path
from windrow.resources.files import FULL, REFUSED, naming_disk_errors
from windrow.resources.storage.downloads import downloading
from windrow.resources.storage.objects import (
    Answered,
    BucketFull,
    BucketMissing,
    BucketRefused,
    BucketUnavailable,
    ClockSkewed,
    InvalidKey,
    NotStoredInTime,
    NotSupported,
    ObjectChanged,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    ObjectStoreError,
    ObjectTooLarge,
    RequestInvalid,
    check_key,
)
from windrow.resources.storage.server_facts import ServerFacts

if TYPE_CHECKING:
    from obstore import GetOptions

    from windrow.resources.storage.s3_access import S3Access

__all__ = [
    "Bucket",
    "BucketFull",
    "BucketMissing",
    "BucketRefused",
    "BucketUnavailable",
    "ClockSkewed",
    "InvalidKey",
    "NotStoredInTime",
    "NotSupported",
    "ObjectChanged",
    "ObjectExists",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectStore",
    "ObjectStoreError",
    "ObjectTooLarge",
    "RequestInvalid",
    "check_key",
    "open_bucket",
]

T = TypeVar("T")
Content = bytes | mmap.mmap

STREAM_BYTES = 64 * 1024
MAX_REASON = 300
# obstore keeps an answer's status and body in its text only.
_HTTP = re.compile(r"status code: (\d{3})[^:\n]*: ?(.*?)(?:\n\nDebug source:|\Z)", re.DOTALL)
_REDIRECTED = "Received redirect without LOCATION"

_ERRORS: dict[Meaning, type[ObjectStoreError]] = {
    Meaning.RETRY: BucketUnavailable,
    Meaning.CONDITION: ObjectChanged,
    Meaning.MISSING: ObjectMissing,
    Meaning.NO_BUCKET: BucketMissing,
    Meaning.NO_UPLOAD: BucketUnavailable,
    Meaning.REFUSED: BucketRefused,
    Meaning.CREDENTIALS: BucketRefused,
    Meaning.CLOCK: ClockSkewed,
    Meaning.PLACE: RequestInvalid,
    Meaning.UNSUPPORTED: NotSupported,
    Meaning.FULL: BucketFull,
    Meaning.TOO_LARGE: ObjectTooLarge,
    Meaning.CHANGED: ObjectChanged,
    Meaning.INVALID: RequestInvalid,
}


class Bucket:
    """An ObjectStore over any obstore store: a folder today, S3 by handing in an S3Store."""

    def __init__(self, store: ObstoreStore, name: str) -> None:
        """name says in errors which bucket it is; it must hold no credential."""
        self._store = store
        self.name = name

    def __repr__(self) -> str:
        return f"Bucket({self.name!r})"

    def put(
        self, key: str, data: bytes, *, create: bool = False, within: float | None = None
    ) -> ObjectInfo:
        return self._put(check_key(key), data, create, within)

    def put_file(
        self, key: str, path: Path, *, create: bool = False, within: float | None = None
    ) -> ObjectInfo:
        check_key(key)
        with contextlib.ExitStack() as stack:
            with naming_disk_errors(path):
                file = stack.enter_context(path.open("rb"))
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return self._put(key, b"", create, within)
            # obstore reads a file that it sends in one piece whole; a map takes no memory.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return self._put(key, stack.enter_context(content), create, within)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        check_key(key)

        def attempt() -> bytes:
            with self._errors("read", key):
                result = obstore.get(self._store, key)
                self._check_size(key, result.meta["size"], max_bytes)
                return bytes(result.bytes())

        return self._try(attempt)

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, resume: bool = False
    ) -> ObjectInfo:
        check_key(key)
        info = self._known(key)
        self._check_size(key, info.size, max_bytes)
        version = f"{info.etag} {info.last_modified}"
        with downloading(path, version, info.size, resume=resume) as file:
            self._try(lambda: self._continue(key, info, file), file.tell)
        return info

    def head(self, key: str) -> ObjectInfo | None:
        check_key(key)

        def attempt() -> ObjectInfo:
            with self._errors("look up", key):
                return _info(obstore.head(self._store, key))

        try:
            return self._try(attempt)
        except ObjectMissing:
            return None

    def list(self, prefix: str = "", *, start_after: str = "") -> list[ObjectInfo]:
        # A store matches whole segments; the rest of the prefix is matched here.
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)

        def attempt() -> list[ObjectInfo]:
            with self._errors("list", prefix):
                pages = obstore.list(
                    self._store, folder or None, offset=start_after or None, chunk_size=1000
                )
                return [_info(meta) for page in pages for meta in page]

        found = self._try(attempt)
        return sorted(
            (info for info in found if info.key.startswith(prefix) and info.key > start_after),
            key=lambda info: info.key,
        )

    def delete(self, key: str) -> None:
        check_key(key)

        def attempt() -> None:
            with self._errors("delete", key):
                obstore.delete(self._store, key)

        with contextlib.suppress(ObjectMissing):
            self._try(attempt)

    def _try(self, attempt: Callable[[], T], progress: Callable[[], int] = int) -> T:  # noqa: ARG002
        """What the attempt returns; a bucket behind a network repeats one that failed.

        progress: grows while attempts get on, as a download does that goes on where it stopped.
        """
        return attempt()

    def _put(
        self,
        key: str,
        content: Content,
        create: bool,
        within: float | None,  # noqa: ARG002
    ) -> ObjectInfo:
        with self._errors("write", key):
            obstore.put(self._store, key, content, mode="create" if create else "overwrite")
        return self._known(key)

    def _known(self, key: str) -> ObjectInfo:
        """As head. Raises ObjectMissing."""
        info = self.head(key)
        if info is None:
            # Only the body of an answer tells a missing object from a missing bucket.
            with contextlib.suppress(ObjectTooLarge):
                self.get(key, max_bytes=0)
            raise ObjectMissing(f"Cannot read {self.name}/{key}: no such object.")
        return info

    def _continue(self, key: str, info: ObjectInfo, file: BinaryIO) -> None:
        """Append what is still missing of an object to a file."""
        position = file.tell()
        if position == info.size:
            return
        options: GetOptions = {"if_match": info.etag} if info.etag else {}
        if position:
            options["range"] = {"offset": position}
        with self._errors("read", key):
            result = obstore.get(self._store, key, options=options)
        chunks = iter(result.stream(min_chunk_size=STREAM_BYTES))
        while True:
            with self._errors("read", key):
                chunk = next(chunks, None)
            if chunk is None:
                break
            file.write(chunk)
        if file.tell() != info.size:
            raise BucketUnavailable(
                f"{self.name}/{key} ended after {file.tell()} of {info.size} bytes. Fetch it again."
            )

    def _check_size(self, key: str, size: int, max_bytes: int | None) -> None:
        if max_bytes is not None and size > max_bytes:
            raise ObjectTooLarge(
                f"{self.name}/{key} has {size} bytes, more than the {max_bytes} allowed here."
            )

    def _reason(self, error: BaseException) -> str:
        """What a store said, in one line."""
        return str(error).partition("\n")[0][:MAX_REASON]

    def _explained(self, verb: str, key: str, answer: Answer) -> Answer:  # noqa: ARG002
        """An answer with what its body did not say, as far as the bucket tells."""
        return answer

    def _server_facts(self) -> ServerFacts:
        """What the bucket's server says of itself."""
        return ServerFacts()

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, Answered) as error:
            self._raise_named(verb, key, error)

    def _raise_named(self, verb: str, key: str, error: BaseError | OSError | Answered) -> NoReturn:
        where = f"Cannot {verb} {self.name}/{key}"
        answer = answer_in(error)
        if answer is not None:
            answer = self._explained(verb, key, answer)
            raise self._named(where, verb, answer) from error
        reason = self._reason(error)
        # obstore keeps the system's error number only in its text.
        number = re.search(r"\(os error (\d+)\)", reason)
        code = int(number[1]) if number else None
        if isinstance(error, AlreadyExistsError):
            raise ObjectExists(f"{where}: an object is already there.") from error
        if isinstance(error, FileNotFoundError):
            raise ObjectMissing(f"{where}: no such object.") from error
        if isinstance(error, PreconditionError):
            raise ObjectChanged(f"{where}: it was replaced meanwhile. Read it again.") from error
        if code in FULL:
            raise BucketFull(
                f"{where}: the bucket is full ({reason}). Nothing was stored; make room and run "
                "again."
            ) from error
        if code in REFUSED:
            raise BucketRefused(
                f"{where}: the bucket refuses it ({reason}). Check its permissions."
            ) from error
        raise BucketUnavailable(f"{where}: {reason}. Check that the bucket is there.") from error

    def _named(self, where: str, verb: str, answer: Answer) -> ObjectStoreError:
        """The error for an answer of a server."""
        meaning, said = answer.meaning, self._without_secrets(answer.text)
        if meaning is Meaning.CONDITION and verb == "write":
            return ObjectExists(f"{where}: an object is already there ({said}).")
        if meaning is Meaning.CLOCK:
            skew = answer.skew()
            if skew is None:
                skew = self._server_facts().skew
            said = f"{clock_words(skew)} ({said})"
        elif meaning is Meaning.PLACE:
            region = answer.fields.get("Region") or self._server_facts().region
            place = (region and f"region {region}") or answer.fields.get("Endpoint")
            said = f"the bucket is at another place{f', {place}' if place else ''} ({said})"
        elif meaning in _WORDS:
            said = f"{_WORDS[meaning]} ({said})"
        return _ERRORS[meaning](f"{where}: {said}. {answer.remedy}")

    def _without_secrets(self, text: str) -> str:
        """A text without the credentials of this bucket."""
        return text


_WORDS = {
    Meaning.CONDITION: "it was replaced meanwhile",
    Meaning.CHANGED: "it was replaced meanwhile",
    Meaning.MISSING: "no such object",
    Meaning.NO_BUCKET: "there is no bucket of this name",
    Meaning.REFUSED: "the bucket refuses it",
    Meaning.CREDENTIALS: "the bucket refuses the credentials",
    Meaning.UNSUPPORTED: "the server does not implement this",
    Meaning.FULL: "the bucket is full",
    Meaning.TOO_LARGE: "the object is too large for the server",
    Meaning.INVALID: "the server cannot serve this request",
}


def answer_in(error: BaseException) -> Answer | None:
    """The server's answer that an error tells of; None where no answer came."""
    if isinstance(error, Answered):
        return error.answer
    text = str(error)
    if found := _HTTP.search(text):
        return read_answer(int(found[1]), found[2])
    return Answer(301) if _REDIRECTED in text else None


def open_bucket(location: str | Path, access: "S3Access | None" = None) -> Bucket:
    """The bucket at a folder, a file:// URL or, with access, s3://BUCKET[/PREFIX].

    A folder is made when missing. Raises ObjectStoreError for any other URL, BucketRefused when
    the folder cannot be made.
    """
    if str(location).startswith("s3://"):
        from windrow.resources.storage.s3_bucket import open_s3

        return open_s3(str(location), access)
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
