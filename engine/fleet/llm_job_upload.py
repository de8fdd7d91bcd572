"""A job whose prompts and answer are objects: what the node does, and what its upload is worth.

Over its own line the node sends no more than a receipt. The asker holds the object against it, so
what another put there, or what was put there afterwards, is no answer.
"""

import hashlib
import time
from dataclasses import asdict, dataclass
from typing import Final

from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.llm_job_answers import MAX_ANSWER_BYTES, BadAnswer, pack_answers
from windrow.engine.fleet.llm_job_objects import check_address, fetch, put
from windrow.engine.fleet.llm_job_requests import (
    NETWORK,
    BadJob,
    VolumeRequest,
    exact_fields,
    is_sha256,
    read_series,
)

MAX_RECEIPT_BYTES: Final = 4096
MAX_SECONDS: Final = 1e9


@dataclass(frozen=True)
class Receipt:
    """What a node says of the answer it put. size in bytes; sha256: hex; seconds by its clock."""

    job: str
    size: int
    sha256: str
    download_seconds: float
    work_seconds: float
    upload_seconds: float

    def __post_init__(self) -> None:
        times = self.download_seconds, self.work_seconds, self.upload_seconds
        if not (
            isinstance(self.job, str)
            and type(self.size) is int
            and 0 <= self.size < 1 << 50
            and is_sha256(self.sha256)
            and all(type(one) in (int, float) and 0 <= one <= MAX_SECONDS for one in times)
        ):
            raise BadAnswer("no receipt of an upload: a job, a size, a SHA-256 and three times")

    @property
    def seconds(self) -> float:
        """What the node says all of it took."""
        return self.download_seconds + self.work_seconds + self.upload_seconds


def answer_volume(request: VolumeRequest) -> bytes:
    """A node's part: fetch the prompts, answer them, put the answer; returns the receipt.

    Raises AddressRefused, DownloadFailed, UploadFailed, BadJob, UnknownModel and UnusableModel.
    """
    from windrow.engine.fleet.llm_job_model import local_model

    check_address(request.volume.url)
    check_address(request.upload.url)
    model = local_model(request.model)
    began = time.monotonic()
    data = fetch(request.volume.url, size=request.size, sha256=request.sha256)
    fetched = time.monotonic()
    asked = request.with_prompts(read_series(data))
    frame = pack_answers(asked, *model.answer(asked))
    answered = time.monotonic()
    put(request.upload.url, frame)
    digest, ended = hashlib.sha256(frame).hexdigest(), time.monotonic()
    receipt = Receipt(
        request.job_id,
        len(frame),
        digest,
        fetched - began,
        answered - fetched,
        ended - answered,
    )
    return to_json(asdict(receipt))


def read_receipt(data: bytes, job_id: str) -> Receipt:
    """A node's receipt. Raises BadFrame and BadAnswer."""
    try:
        receipt = Receipt(**exact_fields(Receipt, from_json(data, max_bytes=MAX_RECEIPT_BYTES)))
    except BadJob as error:
        raise BadAnswer(f"no receipt of an upload: {error}") from error
    if receipt.job != job_id:
        raise BadAnswer("it is the receipt of another job")
    return receipt


@dataclass(frozen=True)
class Upload:
    """What the asker found where the answer was to be.

    refused: why the receipt is none, else empty. size: bytes that lay there once the receipt had
    come, None without an object. sha256: of what was read of it, None where nothing was: there was
    no object, or too large a one. replaced: whether another object lay there after it was read.
    """

    receipt: Receipt | None
    refused: str = ""
    size: int | None = None
    sha256: str | None = None
    replaced: bool = False

    def to_json(self) -> bytes:
        """As it is kept."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Upload":
        """Raises BadFrame, BadAnswer and BadJob."""
        found = exact_fields(cls, from_json(data, max_bytes=2 * MAX_RECEIPT_BYTES))
        size, digest, told = found["size"], found["sha256"], found["receipt"]
        if not (
            isinstance(found["refused"], str)
            and (size is None or (type(size) is int and size >= 0))
            and (digest is None or is_sha256(digest))
            and type(found["replaced"]) is bool
            and (told is None or isinstance(told, dict))
        ):
            raise BadAnswer("no account of an upload")
        receipt = None if told is None else Receipt(**exact_fields(Receipt, told))
        return cls(**found | {"receipt": receipt})

    @property
    def usable(self) -> bool:
        """Whether what was read is what the receipt says, so that it can be judged."""
        return not self._unread() and not self._other()

    def check(self, elapsed: float) -> NodeCheck:
        """What the upload is worth, whatever the answer says. elapsed: by the asker's clock.

        The network knows no receipts and bounds no size: it judges whatever lies there when it
        looks, and gives nothing where nothing lies.
        """
        missing = self.receipt is not None and self.size is None
        reason = self._unread() or self._other() or self._late(elapsed)
        if not reason and self.replaced:
            reason = "the answer was overwritten after it was read; what was read is judged"
        return NodeCheck(
            "llm_upload",
            NETWORK,
            False if missing else None if reason else True,
            not reason,
            self.size,
            MAX_ANSWER_BYTES,
            "bytes",
            reason,
        )

    def _unread(self) -> str:
        if self.receipt is None:
            return f"the upload has no receipt: {self.refused}"
        if self.size is None:
            return "no answer lay in the bucket when its receipt came: never put, or late"
        if self.sha256 is None:
            return f"the answer in the bucket has {self.size} bytes, and was not read"
        return ""

    def _other(self) -> str:
        if self.receipt is None or (self.size, self.sha256) == (
            self.receipt.size,
            self.receipt.sha256,
        ):
            return ""
        return "the answer in the bucket is not the one of its receipt"

    def _late(self, elapsed: float) -> str:
        if self.receipt is None or self.receipt.seconds <= elapsed:
            return ""
        return f"it says it took {self.receipt.seconds:.1f} s, and was done after {elapsed:.1f}"
