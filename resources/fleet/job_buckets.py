"""The two buckets of language-model jobs, prompts and answers, on S3 or in folders (§5.4).

What a job was is public once it is over: its commitment from before it began, the secret that
opens it, what the node answered and what the trusted node did. So whoever can read the buckets can
make the verdict again, and nobody can read a prompt before the node that is asked has it.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from windrow import WindrowError
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.llm_job import JobVerdict, verify, verify_upload
from windrow.engine.fleet.llm_job_answers import MAX_ANSWER_BYTES, MAX_TEXT_BYTES
from windrow.engine.fleet.llm_job_plan import Job
from windrow.engine.fleet.llm_job_requests import (
    MAX_SERIES_BYTES,
    BadJob,
    read_series,
    series_bytes,
)
from windrow.engine.fleet.llm_job_upload import Upload
from windrow.resources.fleet.job_volumes import UPLOADS, VOLUMES, JobVolume, clear_stray
from windrow.resources.storage.objects import InvalidKey, ObjectExists, ObjectMissing, ObjectStore
from windrow.resources.storage.s3_bucket import S3Bucket

MAX_SERIES: Final = 4000
_SMALL: Final = 64 << 10

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class JobStarted(WindrowError):
    """A job's id was used before; every job has a fresh one."""


class BrokenCommitment(WindrowError):
    """What a bucket holds of a job is not what was committed to before it."""


class DamagedObject(WindrowError):
    """An object of a bucket is not what its key says."""


@dataclass(frozen=True)
class StoredJob:
    """A job that is over. answer, trusted, score: None where there was none. upload: what became
    of the node's upload, None where the answer came otherwise or not at all.
    """

    job: Job
    answer: bytes | None = None
    trusted: bytes | None = None
    score: bytes | None = None
    upload: Upload | None = None

    def verify(self, elapsed: float) -> JobVerdict | None:
        """The verdict, made again; None if the node never answered. Raises BrokenCommitment."""
        if self.upload is not None:
            read = None if self.answer is None else hashlib.sha256(self.answer).hexdigest()
            if read != self.upload.sha256:
                raise BrokenCommitment(
                    f"the answer kept of job {self.job.job_id} is not the one that was read; do "
                    "not believe a verdict on it"
                )
            return verify_upload(
                self.job,
                self.upload,
                self.answer,
                elapsed,
                trusted=self.trusted,
                score=self.score,
            )
        if self.answer is None:
            return None
        return verify(self.job, self.answer, elapsed, trusted=self.trusted, score=self.score)


class JobBuckets:
    """Both buckets; they may be one. Every object is written once."""

    def __init__(self, prompts: ObjectStore, answers: ObjectStore) -> None:
        self._prompts = prompts
        self._answers = answers

    def commit(self, job: Job) -> None:
        """Make public that this job will be asked, and nothing of what. Raises JobStarted."""
        data = to_json({"commitment": job.commitment(), "job": job.job_id, "node": job.node})
        try:
            self._prompts.put(f"commitments/{job.job_id}.json", data, create=True)
        except ObjectExists as error:
            raise JobStarted(f"job {job.job_id} was begun before; draw another id") from error

    def sweep(self) -> None:
        """Remove objects that were for nodes of jobs long over. Raises ObjectStoreError."""
        now = time.time()
        clear_stray(self._prompts, VOLUMES, now)
        clear_stray(self._answers, UPLOADS, now)

    def volume(self, job: Job) -> JobVolume | None:
        """The job's objects for its node; None where no address can be signed: in folders."""
        if isinstance(self._prompts, S3Bucket) and isinstance(self._answers, S3Bucket):
            return JobVolume(self._prompts, self._answers, job)
        return None

    def reveal(self, over: StoredJob) -> None:
        """Make public what a job was and what came of it, once the node cannot answer again."""
        job, folder = over.job, f"jobs/{over.job.job_id}"
        frames = ("answer", over.answer), ("trusted", over.trusted), ("score", over.score)
        for name, data in frames:
            if data is not None:
                self._answers.put(f"{folder}/{name}.frame", data)
        if over.upload is not None:
            self._answers.put(f"{folder}/upload.json", over.upload.to_json())
        self.put_series(job.job_id, job.texts())
        self._prompts.put(f"{folder}.json", job.to_json())

    def stored(self, job_id: str) -> StoredJob:
        """A job that was revealed.

        Raises ObjectMissing, BrokenCommitment, BadFrame, BadJob and BadAnswer.
        """
        name = _checked(job_id)
        committed = from_json(
            self._prompts.get(f"commitments/{name}.json", max_bytes=_SMALL), max_bytes=_SMALL
        )
        job = Job.from_json(self._prompts.get(f"jobs/{name}.json", max_bytes=_SMALL))
        if job.job_id != name or committed.get("commitment") != job.commitment():
            raise BrokenCommitment(
                f"job {name} is not the one that was committed to; do not believe its verdict"
            )
        parts = [self._kept(f"{name}/{part}.frame") for part in ("answer", "trusted", "score")]
        told = self._kept(f"{name}/upload.json", _SMALL)
        return StoredJob(job, *parts, None if told is None else Upload.from_json(told))

    def put_series(self, name: str, prompts: Sequence[str]) -> None:
        """A series, as the network's generator writes it. Raises BadJob."""
        self._prompts.put(f"series/{_checked(name)}.txt", series_bytes(prompts))

    def series(self, name: str) -> tuple[str, ...]:
        """The prompts of a series. Raises ObjectMissing, ObjectTooLarge, DamagedObject."""
        data = self._prompts.get(f"series/{_checked(name)}.txt", max_bytes=MAX_SERIES_BYTES)
        try:
            return read_series(data)
        except BadJob as error:
            raise DamagedObject(f"series {name}: {error}") from error

    def series_names(self) -> list[str]:
        """Series there are, at most MAX_SERIES."""
        found = [info.key for info in self._prompts.list("series/")]
        names = [key.removeprefix("series/").removesuffix(".txt") for key in found]
        return [name for name in names if _NAME.fullmatch(name)][:MAX_SERIES]

    def put_solved(self, name: str, texts: Mapping[str, str]) -> None:
        """A map of prompts to answers, as the network's solver writes it."""
        self._answers.put(f"solved/{_checked(name)}.json", to_json(texts))

    def solved(self, name: str) -> dict[str, str]:
        """Answers by prompt, whoever wrote them. Raises ObjectMissing, BadFrame, DamagedObject."""
        data = self._answers.get(f"solved/{_checked(name)}.json", max_bytes=MAX_TEXT_BYTES)
        texts = from_json(data, max_bytes=MAX_TEXT_BYTES)
        if not all(isinstance(text, str) for text in texts.values()):
            raise DamagedObject(f"answers {name}: not all of them are text")
        return texts

    def _kept(self, name: str, most: int = MAX_ANSWER_BYTES) -> bytes | None:
        try:
            return self._answers.get(f"jobs/{name}", max_bytes=most)
        except ObjectMissing:
            return None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidKey(f"{name[:80]!r} names no series or job: use a-z, 0-9 and '-'")
    return name
