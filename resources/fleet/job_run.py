"""A language-model job from its commitment to its verdict, over objects or over the node's line."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from windrow.engine.fleet.frames import BadFrame
from windrow.engine.fleet.llm_job import (
    JobVerdict,
    bits,
    challenge,
    needs_score,
    score_request,
)
from windrow.engine.fleet.llm_job_answers import MAX_ANSWER_BYTES, BadAnswer, read_loaded
from windrow.engine.fleet.llm_job_plan import Job
from windrow.engine.fleet.llm_job_requests import LoadRequest
from windrow.engine.fleet.llm_job_upload import MAX_RECEIPT_BYTES, Upload
from windrow.resources.fleet.job_buckets import JobBuckets, StoredJob
from windrow.resources.fleet.job_volumes import JobVolume
from windrow.resources.fleet.nodes import Answer, NodeAccess, NodeError, TaskFailed
from windrow.resources.fleet.trusted import TrustedNodeFailed

TASK: Final = "llm_job"
LOAD_SECONDS: Final = 600.0
LATE_SECONDS: Final = 20.0
"""How long after its time an answer is still waited for: late is a finding, silent is lost."""
_SMALL: Final = 64 << 10


@dataclass(frozen=True)
class JobRun:
    """What came of a job. seconds: from asking to the answer, or to the receipt of its upload."""

    verdict: JobVerdict
    seconds: float
    upload: Upload | None = None


def precision(
    trusted: NodeAccess, model: str, *, gpus: bool, load_seconds: float = LOAD_SECONDS
) -> int:
    """`Job.bits` of a job, as the trusted node's files say; it loads the model for that.

    gpus: whether the node that is asked has any. Raises NodeError and TrustedNodeFailed.
    """
    request = LoadRequest(model).to_json()
    told = trusted.ask(TASK, request, timeout=load_seconds, max_bytes=_SMALL)
    try:
        return bits(read_loaded(told.body, model), gpus)
    except (BadFrame, BadAnswer) as error:
        raise TrustedNodeFailed(f"the trusted node loads {model}, but {error}") from error


def run_job(
    buckets: JobBuckets,
    job: Job,
    node: NodeAccess,
    trusted: NodeAccess,
    *,
    load_seconds: float = LOAD_SECONDS,
) -> JobRun:
    """Ask a node a job and check all of its answer with a trusted one.

    In S3 buckets the prompts are an object that the node fetches and the answer one that it puts,
    each by an address signed for it alone; the prompts are there once everything is ready to ask.
    The trusted node works after the node, so there is nothing to copy; it scores the tokens only
    if the texts differ. load_seconds: that loading the model, and the trusted node, may take.
    The job is revealed however it ends.
    Raises JobStarted, NodeError, TrustedNodeFailed and what buckets raise.
    """
    buckets.sweep()
    buckets.commit(job)
    over, volume, seconds = StoredJob(job), buckets.volume(job), 0.0
    try:
        load = LoadRequest(job.model).to_json()
        node.ask(TASK, load, timeout=load_seconds, max_bytes=_SMALL)
        over, seconds = _asked(over, volume, node)
        if over.answer is not None and (over.upload is None or over.upload.usable):
            request = challenge(job)
            own = trusted.ask(TASK, request, timeout=load_seconds, max_bytes=MAX_ANSWER_BYTES).body
            over = replace(over, trusted=own)
            with _read_of_trusted():
                differs = needs_score(job, over.answer, own)
            if differs:
                asked = score_request(job, over.answer)
                score = trusted.ask(TASK, asked, timeout=load_seconds, max_bytes=MAX_ANSWER_BYTES)
                over = replace(over, score=score.body)
        if volume is not None and over.upload is not None and volume.replaced():
            over = replace(over, upload=replace(over.upload, replaced=True))
    finally:
        try:
            buckets.reveal(over)
        finally:
            if volume is not None:
                volume.clear()
    return JobRun(_verdict(over, seconds), seconds, over.upload)


def _asked(over: StoredJob, volume: JobVolume | None, node: NodeAccess) -> tuple[StoredJob, float]:
    """The job with what the node answered, and the seconds it took."""
    timeout = over.job.limit_seconds + LATE_SECONDS
    if volume is None:
        answer = node.ask(TASK, challenge(over.job), timeout=timeout, max_bytes=MAX_ANSWER_BYTES)
        return replace(over, answer=answer.body), answer.seconds
    told = _receipt(over.job, volume, node, timeout)
    upload, data = volume.take(told.body)
    return replace(over, answer=data, upload=upload), told.seconds


def _receipt(job: Job, volume: JobVolume, node: NodeAccess, timeout: float) -> Answer:
    """What the node says of its upload. Raises NodeError, its words without any address."""
    try:
        return node.ask(TASK, volume.lend(), timeout=timeout, max_bytes=MAX_RECEIPT_BYTES)
    except NodeError as error:
        reason = error.reason if isinstance(error, TaskFailed) else ""
        if not volume.tells_address(f"{reason} {error}"):
            raise
    # Outside of the handler: an error that is being handled would be kept with the new one.
    raise TaskFailed(job.node, TASK, "AddressTold", "it tells an address it was given")


def _verdict(over: StoredJob, seconds: float) -> JobVerdict:
    with _read_of_trusted():
        verdict = over.verify(seconds)
    assert verdict is not None  # an answer or its upload is there, or an error was raised
    return verdict


@contextmanager
def _read_of_trusted() -> Iterator[None]:
    """What cannot be read is the trusted node's: of the other one that would be a finding."""
    try:
        yield
    except (BadFrame, BadAnswer) as error:
        raise TrustedNodeFailed(f"the trusted node's answer cannot be read: {error}") from error
