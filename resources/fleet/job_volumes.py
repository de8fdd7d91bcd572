"""The two objects of a job that its node is shown: prompts it fetches, and the answer it puts.

They are shown by addresses that are good for one object, one verb and a short time, and both are
gone when the job is over; what is kept of the job are the asker's own copies.
"""

import hashlib
import re
import secrets
from typing import Final

from windrow.engine.fleet.frames import BadFrame
from windrow.engine.fleet.llm_job_answers import MAX_ANSWER_BYTES, BadAnswer
from windrow.engine.fleet.llm_job_plan import MAX_LIMIT_SECONDS, Job
from windrow.engine.fleet.llm_job_requests import (
    ANSWER_FILE,
    PROMPTS_FILE,
    VolumeRequest,
    series_bytes,
)
from windrow.engine.fleet.llm_job_upload import Upload, read_receipt
from windrow.networks.compute_horde.volumes import FilePut, SingleFile
from windrow.resources.secret import Secret
from windrow.resources.storage.objects import ObjectInfo, ObjectMissing, ObjectStore, ObjectTooLarge
from windrow.resources.storage.s3_bucket import S3Bucket

SLACK_SECONDS: Final = 30.0
"""How much longer than the job an address is good: a clock is off, or a node a little late."""

VOLUMES: Final = "volumes/"
UPLOADS: Final = "uploads/"
STRAY_SECONDS: Final = 2.0 * MAX_LIMIT_SECONDS
"""Age at which an object is of no job any more, whatever job it was of."""

_SIGNED = re.compile(r"x-amz-|amz-signature", re.IGNORECASE)


class JobVolume:
    """A job's two objects in their buckets, under names that nobody can guess."""

    def __init__(self, prompts: S3Bucket, answers: S3Bucket, job: Job) -> None:
        name = secrets.token_hex(16)
        self._prompts, self._prompts_key = prompts, f"{VOLUMES}{name}.txt"
        self._answers, self._answer_key = answers, f"{UPLOADS}{name}.frame"
        self._job = job
        self._urls: tuple[Secret, ...] = ()
        self._read: ObjectInfo | None = None

    def lend(self) -> bytes:
        """The request to the node; from now on the prompts are there to be fetched.

        Raises ObjectStoreError.
        """
        request, seconds = self._job.request(), self._job.limit_seconds + SLACK_SECONDS
        self._prompts.put(self._prompts_key, series_bytes(request.prompts), create=True)
        fetched = self._prompts.signed_url(self._prompts_key, "GET", seconds)
        put = self._answers.signed_url(self._answer_key, "PUT", seconds)
        self._urls = fetched, put
        return VolumeRequest.of(
            request,
            SingleFile(url=fetched.reveal(), relative_path=PROMPTS_FILE),
            FilePut(url=put.reveal(), relative_path=ANSWER_FILE),
        ).to_json()

    def take(self, told: bytes) -> tuple[Upload, bytes | None]:
        """What lies there now that a receipt has come, read once. told: what the node answered.

        Raises ObjectStoreError where the bucket itself fails.
        """
        try:
            receipt = read_receipt(told, self._job.job_id)
        except (BadFrame, BadAnswer) as error:
            said = str(error)[:300]
            refused = "it tells an address it was given" if self.tells_address(said) else said
            return Upload(None, refused), None
        self._read = self._answers.head(self._answer_key)
        if self._read is None:
            return Upload(receipt), None
        if self._read.size > MAX_ANSWER_BYTES:
            return Upload(receipt, size=self._read.size), None
        try:
            data = self._answers.get(self._answer_key, max_bytes=MAX_ANSWER_BYTES)
        except ObjectMissing:
            return Upload(receipt), None
        except ObjectTooLarge:
            # It grew since it was looked at.
            return Upload(receipt, size=MAX_ANSWER_BYTES + 1), None
        return Upload(receipt, size=len(data), sha256=hashlib.sha256(data).hexdigest()), data

    def replaced(self) -> bool:
        """Whether something else lies there than what was read. Raises ObjectStoreError."""
        if self._read is None:
            return False
        found = self._answers.head(self._answer_key)
        return found is None or (found.size, found.etag) != (self._read.size, self._read.etag)

    def tells_address(self, text: str) -> bool:
        """Whether a node's words hold an address it was given, or what looks like one."""
        parts = {part for url in self._urls for part in re.split(r"[/?&=]", url.reveal())}
        return bool(_SIGNED.search(text)) or any(len(part) >= 32 and part in text for part in parts)

    def clear(self) -> None:
        """Remove both objects. Raises ObjectStoreError."""
        self._prompts.delete(self._prompts_key)
        self._answers.delete(self._answer_key)


def clear_stray(bucket: ObjectStore, prefix: str, now: float) -> None:
    """Remove what a killed asker left, or a node put once more. Raises ObjectStoreError.

    now: unix seconds.
    """
    for info in bucket.list(prefix):
        if info.last_modified < now - STRAY_SECONDS:
            bucket.delete(info.key)
