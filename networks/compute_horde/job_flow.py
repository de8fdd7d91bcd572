"""One job between validator and miner: stages, timers, and what is paid (§4.2, §4.3).

A flow is a function of what arrived when, so a job is judged again from its stored messages.
The network lets every stage pass whose message has ever arrived, so a miner that sends all of
them at once is paid in full. The strict flow takes them only in order, the end of the work only
after the job was sent, and pays the seconds of work that were seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from windrow.networks.compute_horde import messages as wire
from windrow.networks.compute_horde.classes import CLASSES
from windrow.networks.compute_horde.messages import TIMEOUTS, Timing

RESERVATION_SECONDS: Final = 7
EXECUTOR_START_SECONDS: Final = 5
LEAST_ANSWER_SECONDS: Final = 0.001
"""What answers a message comes no sooner after it: it has the way there and back to go."""
OUT_OF_ORDER: Final = "out_of_order"

Failure = wire.DeclineJob | wire.JobFailed | wire.HordeFailed


@dataclass(frozen=True)
class JobTerms:
    """What was agreed of a job. Seconds.

    timing: None for jobs of the older kind, which have one limit, total_limit, for everything.
    value: executor-seconds it pays. blocks: whose allowance pays them.
    """

    job_uuid: str
    executor_class: str
    timing: Timing | None
    value: float
    blocks: tuple[int, ...] = ()
    streaming: bool = False
    total_limit: float = 300
    reservation_limit: float = RESERVATION_SECONDS
    executor_start_limit: float = EXECUTOR_START_SECONDS

    @property
    def readiness_limit(self) -> float:
        """From the acceptance to a ready executor."""
        return CLASSES[self.executor_class].start_seconds + self.executor_start_limit

    @property
    def accepted_ttl(self) -> int:
        """Life of the accepted receipt."""
        rest = self.total_limit if self.timing is None else self.timing.total
        return int(self.readiness_limit + rest)


@dataclass(frozen=True)
class Arrival:
    """A miner's message. at: seconds since the first was sent."""

    at: float
    message: wire.OfMiner


class Sent(NamedTuple):
    """A validator's message, as much of it as the flow decides."""

    at: float
    type: str
    ttl: int | None = None
    score: str | None = None
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """result: completed, rejected, timed_out, job_failed, horde_failed or, if strict,
    out_of_order. at: when it was known. work_seconds: from the job request to its result.
    """

    result: str
    at: float
    reason: str = ""
    stage: str = ""
    stdout: str = ""
    work_seconds: float = 0.0
    sent: tuple[Sent, ...] = ()


class _Stage(NamedTuple):
    """A wait: for what, the reason if it does not come, and what the deadline is moved by.

    answers: whether it can only come once the job's command was sent.
    """

    message: type[wire.OfMiner]
    timeout: str
    limit: float = 0
    answers: bool = False


class _Ended(NamedTuple):
    result: str
    at: float
    reason: str = ""
    stage: str = ""


def network_flow(terms: JobTerms, arrivals: Sequence[Arrival]) -> Outcome:
    """What the network makes of a job."""
    return _flow(terms, arrivals, strict=False)


def strict_flow(terms: JobTerms, arrivals: Sequence[Arrival]) -> Outcome:
    """The same with the order of messages enforced; pays work that was seen, up to the value."""
    return _flow(terms, arrivals, strict=True)


def _flow(terms: JobTerms, arrivals: Sequence[Arrival], *, strict: bool) -> Outcome:
    inbox = _Inbox(terms, arrivals, strict=strict)
    sent = [
        Sent(0.0, "ValidatorAuthForMiner"),
        Sent(0.0, "V0InitialJobRequest", ttl=int(terms.reservation_limit)),
    ]
    ready_at = work = 0.0
    stage = _Stage(wire.AcceptJob, TIMEOUTS[0])
    end = inbox.wait(stage, 0.0, terms.reservation_limit, ready_at)
    if not isinstance(end, _Ended):
        sent.append(Sent(end, "V0JobAcceptedReceiptRequest", ttl=terms.accepted_ttl))
        stage = _Stage(wire.ExecutorReady, TIMEOUTS[1])
        end = inbox.wait(stage, end, end + terms.readiness_limit, ready_at)
    if not isinstance(end, _Ended):
        ready_at = end
        sent.append(Sent(end, "V0JobRequest"))
        leeway = terms.total_limit if terms.timing is None else terms.timing.allowed_leeway
        deadline = end + leeway
        for stage in _stages(terms):
            # Moved, never set anew: time that one stage leaves is the next one's.
            deadline += stage.limit
            end = inbox.wait(stage, end, deadline, ready_at)
            if isinstance(end, _Ended):
                break
    if not isinstance(end, _Ended):
        work = end - ready_at
        paid = min(terms.value, work) if strict else terms.value
        blocks = terms.blocks if paid > 0 else ()
        sent.append(Sent(end, "V0JobFinishedReceiptRequest", score=f"{paid:.6f}", blocks=blocks))
        return Outcome("completed", end, stdout=inbox.stdout(), work_seconds=work, sent=tuple(sent))
    sent.append(Sent(end.at, "V0JobFinishedReceiptRequest", score=f"{0:.6f}"))
    return Outcome(end.result, end.at, end.reason, end.stage, sent=tuple(sent))


def _stages(terms: JobTerms) -> list[_Stage]:
    timing = terms.timing or Timing(
        allowed_leeway=0,
        download_time_limit=0,
        execution_time_limit=0,
        upload_time_limit=0,
        streaming_start_time_limit=0,
    )
    stages = [_Stage(wire.VolumesReady, TIMEOUTS[2], timing.download_time_limit)]
    if terms.streaming:
        stages.append(_Stage(wire.StreamingReady, TIMEOUTS[3], timing.streaming_start_time_limit))
    return [
        *stages,
        _Stage(wire.ExecutionDone, TIMEOUTS[4], timing.execution_time_limit, answers=True),
        _Stage(wire.JobFinished, TIMEOUTS[5], timing.upload_time_limit),
    ]


class _Inbox:
    """The first message of each kind about the job; repeats and other jobs' are not looked at."""

    def __init__(self, terms: JobTerms, arrivals: Sequence[Arrival], *, strict: bool) -> None:
        self._first: dict[type[wire.OfMiner], Arrival] = {}
        self._place: dict[type[wire.OfMiner], int] = {}
        for place, arrival in enumerate(sorted(arrivals, key=lambda arrival: arrival.at)):
            if getattr(arrival.message, "job_uuid", None) == terms.job_uuid:
                self._first.setdefault(type(arrival.message), arrival)
                self._place.setdefault(type(arrival.message), place)
        self._strict = strict
        self._last = -1

    def wait(self, stage: _Stage, since: float, deadline: float, job_sent: float) -> float | _Ended:
        """When a stage's message is there, waiting from `since`, or how the job ended instead."""
        wanted = self._first.get(stage.message)
        failure = self._failure(declines=stage.message is wire.AcceptJob)
        if failure is not None and (wanted is None or max(failure.at, since) < wanted.at):
            at = max(failure.at, since)
            if at <= deadline:
                return _ended(failure, at)
        if wanted is None or wanted.at > deadline:
            return _Ended("timed_out", deadline, stage.timeout)
        at = max(wanted.at, since)
        if self._strict:
            name = stage.message.model_fields["message_type"].default
            if self._place[stage.message] < self._last:
                return _Ended(OUT_OF_ORDER, at, f"{name} came before what it follows")
            if stage.answers and wanted.at < job_sent + LEAST_ANSWER_SECONDS:
                return _Ended(OUT_OF_ORDER, at, f"{name} came before the job could be known")
            self._last = self._place[stage.message]
        return at

    def stdout(self) -> str:
        """What the job printed."""
        finished = self._first[wire.JobFinished].message
        return finished.docker_process_stdout if isinstance(finished, wire.JobFinished) else ""

    def _failure(self, *, declines: bool) -> Arrival | None:
        kinds: list[type[wire.OfMiner]] = [wire.JobFailed, wire.HordeFailed]
        if declines:
            kinds.append(wire.DeclineJob)
        found = [self._first[kind] for kind in kinds if kind in self._first]
        return min(found, key=lambda arrival: arrival.at, default=None)


def _ended(failure: Arrival, at: float) -> _Ended:
    message = failure.message
    if isinstance(message, wire.DeclineJob):
        return _Ended("rejected", at, message.reason)
    if isinstance(message, wire.JobFailed):
        return _Ended("job_failed", at, message.reason, message.stage)
    reason = message.reason if isinstance(message, wire.HordeFailed) else wire.UNKNOWN
    return _Ended("horde_failed", at, reason)
