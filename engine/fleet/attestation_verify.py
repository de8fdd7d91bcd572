"""The asker's verdict on an attestation: two answers, held against what a processor recomputes.

`attestation_plan` makes the requests and `attestation_proof` does the arithmetic. Answers are the
node's and may be anything. docs/attestation.md says what a passed attestation proves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from windrow.engine.fleet.attestation_plan import (
    CPU_UUID,
    FILLED,
    ROUNDING,
    Plan,
    parse_challenge,
    parse_opening,
    pick,
)
from windrow.engine.fleet.attestation_proof import (
    ErrorBounds,
    error_bounds,
    fill_problem,
    follow_rows,
    matrices_of,
    residency_problem,
    walk_problem,
)
from windrow.engine.fleet.attestation_timing import (
    PEAKS,
    ROUND_TRIP,
    TimeVerdict,
    residency_verdict,
    timing_verdict,
)
from windrow.engine.fleet.attestation_wire import (
    Claimed,
    WrongAnswer,
    read_commit,
    read_opening,
)
from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.frames import BadFrame

ROWS: Final = 32
MISSING: Final = 0.2
"""Share of the work for which `ErrorBounds` are stated."""

UNANSWERED: Final = "the node gave no answer to this round"


class Answered(Protocol):
    """An answer and the seconds it took by the asker's clock."""

    @property
    def body(self) -> bytes: ...
    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class Expectation:
    """What the asker holds a device to. card: short reference its name stands for; memory: bytes
    it has in all; history: seconds of good runs of the same plan, card, driver and backend."""

    card: str | None = None
    memory: int | None = None
    history: tuple[float, ...] = ()


@dataclass
class DeviceProof:
    """What the answers prove of one device, the reasons empty where nothing is wrong.

    committed: it made the matrices that its slices and digests are the trace of. resident: it had
    all of them when asked again. walked: the opened parts of its walk are right. digest: the
    walk's last, hex. bounds: chances that a device passes which lacks a part.
    """

    uuid: str
    plan: Plan
    bounds: ErrorBounds
    claimed: Claimed | None = None
    committed: str = UNANSWERED
    resident: str = UNANSWERED
    walked: str = UNANSWERED
    digest: str = ""
    recomputed: bool = False

    @property
    def sound(self) -> bool:
        return not (self.committed or self.resident or self.walked)


def verify(
    asked: bytes,
    opening_asked: bytes,
    randomness: bytes,
    commit: Answered,
    opened: Answered | None,
    *,
    expectations: Mapping[str, Expectation],
    rows: int = ROWS,
    round_trip: float = ROUND_TRIP,
) -> tuple[list[DeviceProof], list[NodeCheck]]:
    """Proofs and checks of every device, in the order of their uuids.

    asked, opening_asked: the requests; randomness: what the second was made of, drawn after the
    first answer. opened: None where the node gave no second answer. rows: rows recomputed of each
    device. round_trip: seconds the network may take. Raises only for the asker's own mistakes.
    """
    body = None if opened is None else opened.body
    proofs = prove_devices(asked, opening_asked, randomness, commit.body, body, rows=rows)
    checks: list[NodeCheck] = []
    for proof in proofs:
        expected = expectations.get(proof.uuid, Expectation())
        again = None if opened is None else opened.seconds
        checks.extend(_checks(proof, expected, commit.seconds, again, round_trip))
    return proofs, checks


def prove_devices(
    asked: bytes,
    opening_asked: bytes,
    randomness: bytes,
    commit: bytes,
    opened: bytes | None,
    *,
    rows: int = ROWS,
) -> list[DeviceProof]:
    """What two answers prove of each device, times aside: arguments as of `verify`."""
    challenge, opening = parse_challenge(asked), parse_opening(opening_asked)
    proofs = [
        DeviceProof(uuid, plan, error_bounds(plan, rows, len(opening.steps[uuid]), MISSING))
        for uuid, plan in sorted(challenge.plans.items())
    ]
    try:
        claims, committed = read_commit(commit, challenge)
    except (BadFrame, WrongAnswer) as error:
        for proof in proofs:
            proof.committed = str(error)
        return proofs
    unread, recomputed, answers = UNANSWERED, False, None
    if opened is not None:
        try:
            recomputed, answers = read_opening(opened, opening)
        except (BadFrame, WrongAnswer) as error:
            unread = str(error)
    for place, proof in enumerate(proofs):
        uuid, plan, steps = proof.uuid, proof.plan, opening.steps[proof.uuid]
        proof.claimed, proof.recomputed = claims[place], recomputed
        digests = [digest.tobytes() for digest in committed[place]["walk"]]
        proof.digest = digests[-1].hex()
        secret = pick(randomness, f"secret rows|{uuid}", plan.n, rows)
        needed = matrices_of(steps, digests, plan)
        trail = follow_rows(challenge.seed, uuid, plan, secret, opening.seed, needed)
        proof.committed = fill_problem(committed[place]["slices"], digests[0], trail)
        proof.resident = proof.walked = unread
        if answers is not None:
            mine = answers[place]
            proof.resident = residency_problem(mine["sums"], trail)
            proof.walked = walk_problem(mine["traces"], steps, digests, uuid, plan, trail)
    return proofs


def _checks(
    proof: DeviceProof,
    expected: Expectation,
    seconds: float,
    again: float | None,
    round_trip: float,
) -> Iterator[NodeCheck]:
    gpu = None if proof.uuid == CPU_UUID else proof.uuid
    plan, peak = proof.plan, PEAKS.get(expected.card or "")

    check = partial(NodeCheck, network=WINDROW, network_verdict=None, gpu=gpu)
    for name, reason in (
        ("attestation_fill", proof.committed),
        ("attestation_residency", proof.resident),
        ("attestation_walk", proof.walked),
    ):
        yield check(name, windrow_verdict=not reason, reason=reason)
    if expected.memory is not None:
        yield _coverage(plan, expected.memory, gpu)
    verdict = timing_verdict(
        plan, seconds, peak=peak, history=expected.history, round_trip=round_trip
    )
    yield check("attestation_time", **_timed(seconds, verdict))
    if again is not None:
        verdict = residency_verdict(
            plan, again, seconds, peak=peak, recomputed=proof.recomputed, round_trip=round_trip
        )
        yield check("attestation_residency_time", **_timed(again, verdict))
    if proof.claimed is not None:
        said = proof.claimed.fill_seconds + proof.claimed.walk_seconds
        reason = f"the node says it worked {said:.3g} s, and answered within {seconds:.3g}"
        forged = TimeVerdict(said <= seconds, None, seconds, reason if said > seconds else "")
        yield check("attestation_claimed_time", **_timed(said, forged))


def _timed(seconds: float, verdict: TimeVerdict) -> dict[str, Any]:
    return {
        "windrow_verdict": verdict.verdict,
        "measured": seconds,
        "needed": verdict.least if verdict.verdict is None else verdict.most,
        "unit": "s",
        "reason": verdict.reason,
    }


def _coverage(plan: Plan, memory: int, gpu: str | None) -> NodeCheck:
    """Whether the plan fills the memory that the device has, by its facts."""
    needed = FILLED * memory - ROUNDING
    short = plan.resident_bytes < needed
    return NodeCheck(
        "attestation_coverage",
        WINDROW,
        None,
        not short,
        float(plan.resident_bytes),
        needed,
        "bytes",
        f"the plan fills {plan.resident_bytes / memory:.1%} of the memory" if short else "",
        "ask with plan_for(memory)" if short else "",
        gpu,
    )
