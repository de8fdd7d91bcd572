"""The language-model job: asked with fresh prompts, answered with evidence, checked whole.

ComputeHorde compares one answer of 240, text by text (compute-horde §5.4, §14.8). Here every
answer counts: equal to the trusted node's own where its engine gives equal texts, and otherwise
held against the model token by token, both how likely each one is and whether the seed draws it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.frames import BadFrame
from windrow.engine.fleet.llm_job_answers import (
    Answers,
    BadAnswer,
    Loaded,
    Score,
    pack_answers,
    pack_scores,
    read_answers,
    read_scores,
    tokens_digest,
)
from windrow.engine.fleet.llm_job_plan import EXACT_BITS, LOW_BITS, Job
from windrow.engine.fleet.llm_job_requests import (
    NETWORK,
    LoadRequest,
    ScoreRequest,
    VolumeRequest,
    read_request,
)
from windrow.engine.fleet.llm_job_upload import Upload, answer_volume
from windrow.networks.compute_horde import llm_samples

NUCLEUS_SLACK: Final = 0.01
"""Probability that numerical drift may carry over the edge of top-p."""


def answer(request: bytes) -> bytes:
    """A node's part: load a model, answer a job, or score another's answer.

    Raises BadFrame, BadJob, UnknownModel, UnusableModel and what `answer_volume` raises.
    """
    from windrow.engine.fleet.llm_job_model import local_model

    asked = read_request(request)
    if isinstance(asked, LoadRequest):
        loaded = local_model(asked.model)
        return Loaded(asked.model, loaded.stored, loaded.computes).to_json()
    if isinstance(asked, VolumeRequest):
        return answer_volume(asked)
    if isinstance(asked, ScoreRequest):
        model = local_model(asked.request.model)
        scores = model.score(asked.request, asked.tokens, NUCLEUS_SLACK)
        return pack_scores(asked.request, asked.tokens, scores)
    answered, seconds = local_model(asked.model).answer(asked)
    return pack_answers(asked, answered, seconds)


def challenge(job: Job) -> bytes:
    """The request to answer a job."""
    return job.request().to_json()


def needs_score(job: Job, data: bytes, trusted: bytes) -> bool:
    """Whether a well-formed answer differs from the trusted node's own, so tokens must be scored.

    Raises BadFrame and BadAnswer for what the trusted node answered.
    """
    request = job.request()
    own = read_answers(trusted, request).texts(request.prompts)
    try:
        given = read_answers(data, request).texts(request.prompts)
    except (BadFrame, BadAnswer):
        return False
    return given != own


def score_request(job: Job, data: bytes) -> bytes:
    """The request to score an answer's tokens. Raises BadFrame, BadAnswer."""
    request = job.request()
    return ScoreRequest(request, read_answers(data, request).token_rows()).to_json()


@dataclass(frozen=True)
class Tolerance:
    """What numerical drift may make of an honest answer.

    logprob: nats between the node's log-probability of a token and the trusted node's. draw: nats
    by which a token may fall short of the one that the seed draws. share: of each answer's tokens,
    how many may exceed each of the two; of each, so that no answer is invented within it.
    The defaults are for float32 on both sides.
    """

    logprob: float = 1e-3
    draw: float = 1e-2
    share: float = 0.0


LOW_PRECISION: Final = Tolerance(logprob=0.1, draw=0.1, share=0.125)
"""Where either side computes in 16 bits. Weights rounded to 8 bits pass as well, to 4 bits not."""


_EXACT: Final = frozenset({"float32", "float64"})


def bits(trusted: Loaded, gpus: bool) -> int:
    """What `Job.bits` is to be, by the trusted node's word alone and whether the node has GPUs.

    The files are the same on both, and a GPU computes in their numbers, a processor in float32.
    """
    used = {trusted.computes, trusted.stored} if gpus else {trusted.computes}
    return EXACT_BITS if used <= _EXACT else LOW_BITS


def tolerance_of(job: Job) -> Tolerance:
    """What the job allows for: it says so before it is asked, and so does whoever judges again."""
    return Tolerance() if job.bits == EXACT_BITS else LOW_PRECISION


@dataclass(frozen=True)
class JobVerdict:
    """checks: findings for the node's history. tokens: in all answers. equal: answers with the
    trusted node's text. logprob_error, draw_gap: the worst token's; None where none was scored.
    digest: SHA-256 of the answer's tokens.
    """

    checks: tuple[NodeCheck, ...]
    tokens: int = 0
    equal: int | None = None
    logprob_error: float | None = None
    draw_gap: float | None = None
    claimed_seconds: float | None = None
    digest: str = ""

    @property
    def passed(self) -> bool:
        """Whether the node did the work."""
        return all(check.windrow_verdict for check in self.checks)


def verify(
    job: Job,
    data: bytes,
    elapsed: float,
    *,
    trusted: bytes | None = None,
    score: bytes | None = None,
    tolerance: Tolerance | None = None,
) -> JobVerdict:
    """What a node's answer is worth. Nothing that a node answers raises an error.

    elapsed: seconds by the asker's clock. trusted: the trusted node's answer to the same request.
    score: what it says of this answer's tokens; without it only equal texts pass. tolerance: None
    is that of the job.
    Raises BadFrame and BadAnswer for what the trusted node answered.
    """
    request = job.request()
    reference = None if trusted is None else read_answers(trusted, request)
    try:
        answers = read_answers(data, request)
    except (BadFrame, BadAnswer) as error:
        reason = str(error)
        return JobVerdict(
            (NodeCheck("llm_answers", NETWORK, False, False, reason=reason), _time(job, elapsed, 0))
        )
    own = None if reference is None else reference.texts(request.prompts)
    given = answers.texts(request.prompts)
    scores = None if score is None else read_scores(score, request, answers.token_rows())
    evidence = None if scores is None else _evidence(answers, scores)
    equal = None if own is None else sum(given[prompt] == text for prompt, text in own.items())
    return JobVerdict(
        (
            _answers(job, given, own, equal, evidence, tolerance or tolerance_of(job)),
            _time(job, elapsed, answers.claimed_seconds),
        ),
        tokens=sum(map(len, answers.token_rows())),
        equal=equal,
        logprob_error=None if evidence is None else evidence.logprob_error,
        draw_gap=None if evidence is None else evidence.draw_gap,
        claimed_seconds=answers.claimed_seconds,
        digest=tokens_digest(answers.token_rows()),
    )


def verify_upload(
    job: Job,
    upload: Upload,
    data: bytes | None,
    elapsed: float,
    *,
    trusted: bytes | None = None,
    score: bytes | None = None,
) -> JobVerdict:
    """As `verify`, of an answer that was uploaded. data: what was read of it.

    An answer that is not the one of its receipt is not judged.
    """
    check = upload.check(elapsed)
    if data is None or not upload.usable:
        return JobVerdict((check, _time(job, elapsed, 0)))
    verdict = verify(job, data, elapsed, trusted=trusted, score=score)
    return replace(verdict, checks=(check, *verdict.checks))


@dataclass(frozen=True)
class _Evidence:
    """What scores say of each answer's tokens: float64 [L] each."""

    errors: tuple[NDArray[np.float64], ...]
    gaps: tuple[NDArray[np.float64], ...]
    other_texts: int
    unended: int

    @property
    def logprob_error(self) -> float:
        return max(float(row.max()) for row in self.errors)

    @property
    def draw_gap(self) -> float:
        return max(float(row.max()) for row in self.gaps)

    def problem(self, tolerance: Tolerance) -> str:
        """What is wrong, in words; numbers that are none count as wrong."""
        found = [
            (self.other_texts, "are not the text of their tokens"),
            (self.unended, "stop where the model does not"),
            (
                _beyond(self.errors, tolerance.logprob, tolerance.share),
                "have tokens of another log-probability",
            ),
            (
                _beyond(self.gaps, tolerance.draw, tolerance.share),
                "have tokens that are not what the seed draws",
            ),
        ]
        of = len(self.errors)
        return "; ".join(f"{count} of {of} answers {what}" for count, what in found if count)


def _beyond(rows: Sequence[NDArray[np.float64]], most: float, share: float) -> int:
    """Answers of which more than a share of the tokens exceed a limit."""
    return sum(int((~(row <= most)).sum()) > share * len(row) for row in rows)


def _evidence(answers: Answers, scores: Sequence[Score]) -> _Evidence:
    pairs = list(zip(answers.answered, scores, strict=True))
    return _Evidence(
        tuple(
            np.abs(one.logprobs.astype(np.float64) - score.logprobs.astype(np.float64))
            for one, score in pairs
        ),
        tuple(score.gaps.astype(np.float64) for score in scores),
        sum(one.text != score.text for one, score in pairs),
        sum(not score.ended for score in scores),
    )


def _answers(
    job: Job,
    given: dict[str, str],
    own: dict[str, str] | None,
    equal: int | None,
    evidence: _Evidence | None,
    tolerance: Tolerance,
) -> NodeCheck:
    network = None
    if own is not None:
        known = job.request().prompts[job.known()]
        network, _ = llm_samples.network_verify({known: own[known]}, given)
    if equal == len(given):
        return NodeCheck("llm_answers", NETWORK, network, True, equal, len(given), "answers")
    if evidence is not None:
        reason = evidence.problem(tolerance)
        error = evidence.logprob_error
        measured = error if np.isfinite(error) else None
        return NodeCheck(
            "llm_answers", NETWORK, network, not reason, measured, tolerance.logprob, "nats", reason
        )
    if own is None or equal is None:
        reason = "no trusted node answered or scored the job; name one and ask again"
        return NodeCheck("llm_answers", NETWORK, network, None, reason=reason)
    reason = f"{len(given) - equal} of {len(given)} answers are not the trusted node's"
    return NodeCheck("llm_answers", NETWORK, network, False, equal, len(given), "answers", reason)


def _time(job: Job, elapsed: float, claimed: float) -> NodeCheck:
    in_time = 0 < elapsed <= job.limit_seconds
    reason = "" if in_time else f"it took {elapsed:.1f} s of {job.limit_seconds:.1f}"
    if in_time and claimed > elapsed:
        reason = f"it says it took {claimed:.1f} s, and its answer came after {elapsed:.1f}"
    return NodeCheck(
        "llm_time", NETWORK, in_time, not reason, elapsed, job.limit_seconds, "seconds", reason
    )
