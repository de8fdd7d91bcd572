"""A bucket behind a network: what fails is repeated in time, and nothing is stored twice.

An answer may be lost after the object was stored. Then the bucket is asked what it holds before
anything is sent again, and the SHA-256 that travels with each object says whether it is ours.
"""

import contextlib
import hashlib
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from windrow.networks.s3_answers import MAX_SKEW_SECONDS, Answer, Meaning
from windrow.resources.secret import Secret
from windrow.resources.storage.creation_lock import CreationLockTaken, creation_lock
from windrow.resources.storage.multipart import PARTS_IN_FLIGHT, NewObject, create_in_parts
from windrow.resources.storage.object_store import Bucket, Content, answer_in
from windrow.resources.storage.objects import (
    BucketRefused,
    BucketUnavailable,
    NotStoredInTime,
    NotSupported,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectStoreError,
    RequestInvalid,
    check_key,
)
from windrow.resources.storage.patience import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, Patience
from windrow.resources.storage.s3_access import S3Access, check_bucket_name
from windrow.resources.storage.server_facts import ServerFacts, ask_server

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

SHA256: Final = "sha256"
"""Name of the metadata that holds the SHA-256 of an object, as hex."""

READ_SECONDS: Final = 60.0
WRITE_SECONDS: Final = 300.0
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 20.0
# Asking once more what became of an upload takes this long at most, after its time too.
ASK_SECONDS: Final = 10.0
# What a line is thought to carry in a second until it has carried something.
ASSUMED_RATE: Final = 2 * 1024 * 1024
# As the network's own client sends them (grail-validation §18.4).
PART_BYTES: Final = 50 * 1024 * 1024
NO_CONDITION: Final = (
    "cannot create an object on a condition (If-None-Match). Windrow looks the object up, then "
    "stores it, under a lock of this machine. Another machine with the same hotkey could still "
    "replace it in between."
)
_URL: Final = re.compile(r"s3://([^/]+)/?(.*)")
# What the status of a HEAD says too little of.
_UNTOLD: Final = frozenset(
    {Meaning.REFUSED, Meaning.CREDENTIALS, Meaning.INVALID, Meaning.PLACE, Meaning.UNSUPPORTED}
)

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Sent:
    """What is put: enough to know it again. digest: SHA-256 hex."""

    content: Content
    size: int
    digest: str


class S3Bucket(Bucket):
    """An ObjectStore over a bucket of an S3 server. Nothing is asked of it when it is made.

    Objects of more than PART_BYTES are sent in parts. An object that must not replace another is
    looked up before it is sent, and sent with the server's own condition, which some servers
    ignore. A server that says it does not know the condition gets none: the look-up and the
    request that stores are done under a lock of this machine.

    conditions: False once the server has said that it does not know the condition.
    """

    def __init__(
        self,
        bucket: str,
        access: S3Access,
        *,
        prefix: str = "",
        read_seconds: float = READ_SECONDS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """read_seconds: how long to go on with what is read, without any progress.

        Raises S3AccessMissing, InvalidKey, ObjectStoreError.
        """
        self.bucket = check_bucket_name(bucket)
        self.access = access
        self._prefix = check_key(prefix.strip("/")) if prefix.strip("/") else ""
        self._read_seconds = read_seconds
        self._part_bytes = part_bytes
        self._rate = float(ASSUMED_RATE)
        self.conditions = True
        # A read may last as long as bytes keep coming.
        store = self._connect(timeout=86400.0, silence=min(SILENCE_SECONDS, read_seconds))
        super().__init__(store, f"s3://{bucket}/{self._prefix}".rstrip("/"))

    def signed_url(self, key: str, method: Literal["GET", "PUT"], seconds: float) -> Secret:
        """An address with which anyone can get or put this object, and no other, for so long.

        seconds: at most a week, counted from now by this machine's clock. The bucket is not asked.
        What is put there may be of any size, and may be put again while the time lasts.
        Raises InvalidKey, ObjectStoreError.
        """
        valid = timedelta(seconds=math.ceil(seconds))
        with self._errors("sign for", check_key(key)):
            return Secret(obstore.sign(self._connect(timeout=1.0), method, key, valid))

    def _try(self, attempt: Callable[[], T], progress: Callable[[], int] = int) -> T:
        patience = Patience(self._read_seconds)
        while True:
            done = progress()
            try:
                return attempt()
            except BucketUnavailable:
                if progress() > done:
                    patience = Patience(self._read_seconds)
                if not patience.wait():
                    raise

    def _put(self, key: str, content: Content, create: bool, within: float | None) -> ObjectInfo:
        sent = _Sent(content, len(content), hashlib.sha256(content).hexdigest())
        patience = Patience(WRITE_SECONDS if within is None else within)
        failure: ObjectStoreError | None = None
        while True:
            began = False
            try:
                if failure is not None and self._holds(key, sent):
                    break
                if create:
                    self._check_absent(key, patience.left)
                if failure is not None and self._needed(sent) >= patience.left:
                    raise self._late(key, failure) from failure
                began = True
                self._send(key, sent, create, patience.left)
                break
            except ObjectExists:
                # Nobody else's, where an earlier attempt of ours was stored after all; of an object
                # in parts the last request is one that is attempted several times.
                ours = failure is not None or (began and self._in_parts(sent))
                if not ours or not self._try(lambda: self._holds(key, sent)):
                    raise
                break
            except BucketUnavailable as error:
                failure = error
                if not patience.wait():
                    self._ask_once_more(key, sent, failure)
                    break
        return self._known(key)

    def put_on_condition(self, key: str, data: bytes, seconds: float) -> None:
        """Store bytes unless an object is there, by the server's condition alone, in one request.

        Raises ObjectExists, and ObjectStoreError as put does.
        """
        sent = _Sent(data, len(data), hashlib.sha256(data).hexdigest())
        self._send_whole(check_key(key), sent, "create", seconds)

    def _check_absent(self, key: str, seconds: float) -> None:
        """Raise ObjectExists where there is an object: some servers ignore the condition of a put.

        A key that may not look is left to the condition alone.
        """
        try:
            with self._errors("look up", key):
                obstore.head(self._connect(timeout=seconds), key)
        except (ObjectMissing, BucketRefused):
            return
        raise ObjectExists(f"Cannot write {self.name}/{key}: an object is already there.")

    def _send(self, key: str, sent: _Sent, create: bool, seconds: float) -> None:
        began = time.monotonic()
        if not create:
            # A part alone may be sent again; what became of the whole is asked.
            self._send_whole(key, sent, "overwrite", seconds, self._in_parts(sent))
        elif self._in_parts(sent):
            self._create_in_parts(key, sent, seconds)
        else:
            self._create(key, sent, seconds)
        self._rate = max(sent.size, 1) / max(time.monotonic() - began, 1e-3)

    def _send_whole(
        self,
        key: str,
        sent: _Sent,
        mode: Literal["create", "overwrite"],
        seconds: float,
        parts: bool = False,
    ) -> None:
        store = self._connect(timeout=seconds, retries=3 if parts else 0)
        with self._errors("write", key):
            obstore.put(
                store,
                key,
                sent.content,
                attributes={SHA256: sent.digest},
                mode=mode,
                use_multipart=parts,
                chunk_size=self._part_bytes,
                max_concurrency=PARTS_IN_FLIGHT,
            )

    def _create(self, key: str, sent: _Sent, seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            self._send_whole(key, sent, "create", seconds)
            return
        except (NotSupported, RequestInvalid) as error:
            answer = answer_in(error.__cause__) if error.__cause__ else None
            if answer is None or not answer.refuses_condition:
                raise
        with self._alone(key, until - time.monotonic()):
            self._check_absent(key, until - time.monotonic())
            self._send_whole(key, sent, "overwrite", until - time.monotonic())
        # Only now: what the server refused may have been more than the condition.
        self._without_condition()

    def _create_in_parts(self, key: str, sent: _Sent, seconds: float) -> None:
        place = f"{self._prefix}/{key}" if self._prefix else key
        new = NewObject(self.bucket, place, sent.content, {SHA256: sent.digest})
        try:
            with self._errors("write", key):
                known = create_in_parts(
                    self.access,
                    new,
                    self._part_bytes,
                    seconds,
                    lambda left: self._alone(key, left),
                )
        except (ObjectExists, BucketUnavailable) as error:
            where = f"Cannot write {self.name}/{key}"
            if str(error).startswith(where):
                raise
            raise type(error)(f"{where}: {self._reason(error)}.") from None
        if not known:
            self._without_condition()

    @contextlib.contextmanager
    def _alone(self, key: str, seconds: float) -> Iterator[None]:
        """Be the only process of this machine that creates the object."""
        endpoint = self.access.endpoint_of(self.bucket) or self.access.region
        try:
            with creation_lock(f"{endpoint} {self.bucket} {self._prefix} {key}", seconds):
                yield
        except CreationLockTaken as error:
            raise BucketUnavailable(
                f"Cannot write {self.name}/{key}: another process creates an object there and "
                f"holds {error}. Run again when it has ended."
            ) from error

    def _without_condition(self) -> None:
        if self.conditions:
            self.conditions = False
            _log.warning("%s %s", self.name, NO_CONDITION)

    def _holds(self, key: str, sent: _Sent) -> bool:
        """Whether the object is there and is what was sent; asked once."""
        try:
            with self._errors("look up", key):
                found = obstore.get(self._store, key, options={"head": True})
        except ObjectMissing:
            return False
        return found.meta["size"] == sent.size and found.attributes.get(SHA256) == sent.digest

    def _explained(self, verb: str, key: str, answer: Answer) -> Answer:
        if answer.code or answer.strange:
            return answer
        if verb == "look up" and answer.meaning in _UNTOLD:
            # HEAD has no body, and only a body tells an expired token from a clock that is off.
            try:
                obstore.get_range(self._store, key, start=0, length=1)
            except (BaseError, OSError) as error:
                answer = answer_in(error) or answer
        refused = answer.meaning in (Meaning.REFUSED, Meaning.CREDENTIALS, Meaning.INVALID)
        if not answer.code and refused:
            skew = self._server_facts().skew
            if skew is not None and abs(skew) > MAX_SKEW_SECONDS:
                return Answer(answer.status, "RequestTimeTooSkewed")
        return answer

    def _server_facts(self) -> ServerFacts:
        endpoint = self.access.endpoint or f"https://s3.{self.access.region}.amazonaws.com"
        return ask_server(endpoint, self.bucket)

    def _ask_once_more(self, key: str, sent: _Sent, failure: ObjectStoreError) -> None:
        """Raises NotStoredInTime unless the object is there."""
        patience = Patience(min(ASK_SECONDS, self._read_seconds))
        while True:
            try:
                if self._holds(key, sent):
                    return
                raise self._late(key, failure) from failure
            except BucketUnavailable:
                if not patience.wait():
                    unknown = "Whether it was stored is not known."
                    raise self._late(key, failure, unknown) from failure

    def _late(
        self, key: str, failure: ObjectStoreError, known: str = "It was not stored."
    ) -> NotStoredInTime:
        return NotStoredInTime(
            f"The time to write {self.name}/{key} is over. {known} The last failure: {failure} "
            "Run again: what is there is compared first."
        )

    def _in_parts(self, sent: _Sent) -> bool:
        return sent.size > self._part_bytes

    def _needed(self, sent: _Sent) -> float:
        """Seconds that sending takes, as far as the last time tells."""
        return sent.size / self._rate

    def _connect(
        self, *, timeout: float, silence: float | None = None, retries: int = 0
    ) -> S3Store:
        access, timeout = self.access, max(timeout, 1e-3)
        config: S3Config = {
            "access_key_id": access.key_id,
            "secret_access_key": access.secret.reveal(),
            "region": access.region,
            "virtual_hosted_style_request": not access.in_path,
            # One request an object, which every server knows.
            "disable_bulk_delete": True,
        }
        if access.token is not None:
            config["session_token"] = access.token.reveal()
        endpoint = access.endpoint_of(self.bucket)
        if endpoint is not None:
            config["endpoint"] = endpoint
        client: ClientConfig = {
            "allow_http": (endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, timeout)),
            "timeout": timedelta(seconds=timeout),
        }
        if silence is not None:
            client["read_timeout"] = timedelta(seconds=silence)
        retry: RetryConfig = {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=timeout),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_WAIT_SECONDS),
                "max_backoff": timedelta(seconds=LONGEST_WAIT_SECONDS),
                "base": 2,
            },
        }
        try:
            return S3Store(
                self.bucket,
                prefix=self._prefix or None,
                config=config,
                client_options=client,
                retry_config=retry,
            )
        except BaseError as error:
            reason = self._reason(error)
            raise ObjectStoreError(f"s3://{self.bucket} cannot be opened: {reason}") from None

    def _reason(self, error: BaseException) -> str:
        return self._without_secrets(super()._reason(error))

    def _without_secrets(self, text: str) -> str:
        secrets = (self.access.secret, self.access.token)
        hidden = [self.access.key_id, *(secret.reveal() for secret in secrets if secret)]
        for one in hidden:
            text = text.replace(one, "(hidden)")
        return text


def s3_bucket(name: str, access: S3Access) -> S3Bucket:
    """The bucket of this name. Raises S3AccessMissing, ObjectStoreError; asks nothing yet."""
    return S3Bucket(name, access)


def open_s3(url: str, access: S3Access | None = None) -> S3Bucket:
    """The bucket at s3://BUCKET or s3://BUCKET/PREFIX; access: default from the environment."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ObjectStoreError(
            f"{url[:200]!a} is no bucket: give s3://BUCKET or s3://BUCKET/PREFIX"
        )
    access = S3Access.from_environment() if access is None else access
    return S3Bucket(match[1], access, prefix=match[2])
