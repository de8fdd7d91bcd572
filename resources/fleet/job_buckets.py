"""The two buckets of language-model jobs, prompts and answers, on S3 or in folders (§5.4).

What a job was is public once it is over: its commitment from before it began, the secret that
opens it, what the node answered and what the trusted node did. So whoever can read the buckets can
make the verdict again, and nobody can read a prompt before the node that is asked has it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from windrow import WindrowError
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.llm_job import (
    JobVerdict,
    Tolerance,
    challenge,
    needs_score,
    score_request,
    verify,
)
from windrow.engine.fleet.llm_job_answers import MAX_ANSWER_BYTES, MAX_TEXT_BYTES
from windrow.engine.fleet.llm_job_plan import Job, LoadRequest
from windrow.networks.compute_horde.llm_samples import SERIES_PROMPTS
from windrow.resources.fleet.nodes import Answer, NodeAccess
from windrow.resources.storage.objects import InvalidKey, ObjectExists, ObjectMissing, ObjectStore

TASK: Final = "llm_job"
MAX_SERIES_BYTES: Final = 1 << 20
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
    """A job that is over. answer, trusted, score: None where there was none."""

    job: Job
    answer: bytes | None
    trusted: bytes | None
    score: bytes | None

    def verify(self, elapsed: float, tolerance: Tolerance | None = None) -> JobVerdict | None:
        """The verdict, made again; None if the node never answered."""
        if self.answer is None:
            return None
        return verify(
            self.job,
            self.answer,
            elapsed,
            trusted=self.trusted,
            score=self.score,
            tolerance=tolerance,
        )


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

    def reveal(
        self,
        job: Job,
        *,
        answer: bytes | None = None,
        trusted: bytes | None = None,
        score: bytes | None = None,
    ) -> None:
        """Make public what the job was and what came of it, once the node cannot answer again."""
        for name, data in (("answer", answer), ("trusted", trusted), ("score", score)):
            if data is not None:
                self._answers.put(f"jobs/{job.job_id}/{name}.frame", data)
        self.put_series(job.job_id, job.texts())
        self._prompts.put(f"jobs/{job.job_id}.json", job.to_json())

    def stored(self, job_id: str) -> StoredJob:
        """A job that was revealed. Raises ObjectMissing, BrokenCommitment, BadFrame, BadJob."""
        name = _checked(job_id)
        committed = from_json(
            self._prompts.get(f"commitments/{name}.json", max_bytes=_SMALL), max_bytes=_SMALL
        )
        job = Job.from_json(self._prompts.get(f"jobs/{name}.json", max_bytes=_SMALL))
        if job.job_id != name or committed.get("commitment") != job.commitment():
            raise BrokenCommitment(
                f"job {name} is not the one that was committed to; do not believe its verdict"
            )
        parts = [self._frame(name, part) for part in ("answer", "trusted", "score")]
        return StoredJob(job, *parts)

    def put_series(self, name: str, prompts: Sequence[str]) -> None:
        """A series: a prompt a line, as the network's generator writes it."""
        lines = [line for prompt in prompts for line in prompt.splitlines()]
        if len(lines) != len(prompts):
            raise DamagedObject(f"series {name}: a prompt is empty or has more than one line")
        self._prompts.put(f"series/{_checked(name)}.txt", "\n".join(lines).encode())

    def series(self, name: str) -> tuple[str, ...]:
        """The prompts of a series. Raises ObjectMissing, ObjectTooLarge, DamagedObject."""
        data = self._prompts.get(f"series/{_checked(name)}.txt", max_bytes=MAX_SERIES_BYTES)
        try:
            prompts = tuple(data.decode().split("\n"))
        except UnicodeDecodeError as error:
            raise DamagedObject(f"series {name} is no text: {error}") from error
        if not 0 < len(prompts) <= SERIES_PROMPTS or not all(prompts):
            raise DamagedObject(f"series {name} has not 1 to {SERIES_PROMPTS} prompts")
        return prompts

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

    def _frame(self, name: str, part: str) -> bytes | None:
        try:
            return self._answers.get(f"jobs/{name}/{part}.frame", max_bytes=MAX_ANSWER_BYTES)
        except ObjectMissing:
            return None


def run_job(
    buckets: JobBuckets,
    job: Job,
    node: NodeAccess,
    trusted: NodeAccess,
    *,
    load_seconds: float = 600.0,
    tolerance: Tolerance | None = None,
) -> tuple[JobVerdict, Answer]:
    """Ask a node a job and check all of its answer with a trusted one.

    The trusted node works after the node, so there is nothing to copy; it scores the tokens only
    if the texts differ. load_seconds: that loading the model, and the trusted node, may take.
    The job is revealed however it ends. Raises JobStarted, NodeError and what buckets raise.
    """
    buckets.commit(job)
    answer = own = score = None
    try:
        load = LoadRequest(job.model).to_json()
        node.ask(TASK, load, timeout=load_seconds, max_bytes=_SMALL)
        request = challenge(job)
        answer = node.ask(TASK, request, timeout=job.limit_seconds, max_bytes=MAX_ANSWER_BYTES)
        own = trusted.ask(TASK, request, timeout=load_seconds, max_bytes=MAX_ANSWER_BYTES)
        if needs_score(job, answer.body, own.body):
            asked = score_request(job, answer.body)
            score = trusted.ask(TASK, asked, timeout=load_seconds, max_bytes=MAX_ANSWER_BYTES)
    finally:
        buckets.reveal(job, answer=_body(answer), trusted=_body(own), score=_body(score))
    verdict = verify(
        job,
        answer.body,
        answer.seconds,
        trusted=own.body,
        score=_body(score),
        tolerance=tolerance,
    )
    return verdict, answer


def _body(answer: Answer | None) -> bytes | None:
    return None if answer is None else answer.body


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidKey(f"{name[:80]!r} names no series or job: use a-z, 0-9 and '-'")
    return name
