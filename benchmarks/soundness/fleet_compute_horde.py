"""Cheats against ComputeHorde's jobs and receipts: what the network takes, and what Windrow does.

Every one is carried out: answers are made with the demo's model, receipts are signed with real
keys. What the network makes of a receipt is what it takes from a page; what scores become of it is
in the measured `hostile_receipts`.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from bittensor_core import Keypair
from safetensors.torch import load_file, save_file

from windrow.engine.fleet import llm_job
from windrow.engine.fleet.llm_job_answers import Answered, pack_answers, pack_scores
from windrow.engine.fleet.llm_job_model import LocalModel
from windrow.engine.fleet.llm_job_plan import Job
from windrow.networks.compute_horde import logins
from windrow.networks.compute_horde import messages as wire
from windrow.networks.compute_horde.classes import LLM_CLASS
from windrow.networks.compute_horde.excuses import (
    Declined,
    Excusers,
    network_excuses,
    strict_excuses,
)
from windrow.networks.compute_horde.job_flow import Arrival, JobTerms, network_flow, strict_flow
from windrow.networks.compute_horde.receipt_acceptance import Terms, accept
from windrow.networks.compute_horde.receipt_pages import (
    PageLost,
    network_page,
    page_bytes,
    strict_page,
)
from windrow.networks.compute_horde.receipts import Finished, Payload, Receipt, Started, signed
from windrow.networks.compute_horde.signing import written

MODEL: Final = Path(__file__).parents[2] / "pipelines" / "demo" / "checkpoint"
WEIGHTS: Final = "model.safetensors"
JOB: Final = Job(
    "7f4f14bd-bee7-497c-8b2b-992f4fc209ed", "node-1", "demo", "ab" * 32, prompts=8, max_tokens=24
)
NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VALIDATOR: Final = Keypair.create_from_uri("//Validator")
CHEAT: Final = Keypair.create_from_uri("//Cheat")
MINER: Final = Keypair.create_from_uri("//Miner")
CHEATS_MINER: Final = Keypair.create_from_uri("//CheatsMiner")
OTHER_ID: Final = "ddbf1d11-a2dd-4fd4-a6bb-839d9f722425"

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"


class Row(NamedTuple):
    """A cheat, what the network makes of it, what Windrow does, and why."""

    name: str
    network_outcome: str
    windrow_outcome: str
    reason: str


def rows() -> list[Row]:
    """Every cheat and its outcomes."""
    return [*_answers(), *_receipts(), *_flows(), *_others()]


@cache
def model(bits: int = 32) -> LocalModel:
    """The demo's model, its weights rounded to so many bits."""
    if bits == 32:
        return LocalModel(MODEL, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model"
        shutil.copytree(MODEL, copy)
        weights = load_file(copy / WEIGHTS)
        rounded = {name: _rounded(weight.float(), bits) for name, weight in weights.items()}
        save_file(rounded, copy / WEIGHTS, metadata={"format": "pt"})
        return LocalModel(copy, "cpu")


def _rounded(weights: torch.Tensor, bits: int) -> torch.Tensor:
    """Each row in steps of its largest weight / 2^(bits - 1)."""
    step = weights.abs().amax(-1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return (weights / step).round() * step if weights.dim() == 2 else weights


@cache
def answered(job: Job = JOB) -> tuple[Answered, ...]:
    return tuple(model().answer(job.request())[0])


def judged(
    name: str,
    given: Sequence[Answered],
    *,
    job: Job = JOB,
    elapsed: float = 5.0,
    claimed: float = 1,
) -> Row:
    """An answer, compared with the trusted node's own and scored by it."""
    request = job.request()
    data = pack_answers(request, given, claimed)
    tokens = tuple(one.tokens for one in given)
    scores = model().score(request, tokens, llm_job.NUCLEUS_SLACK)
    verdict = llm_job.verify(
        job,
        data,
        elapsed,
        trusted=pack_answers(request, answered(job), 1.0),
        score=pack_scores(request, tokens, scores),
    )
    network = all(check.network_verdict for check in verdict.checks)
    reason = "; ".join(check.reason for check in verdict.checks if check.reason)
    return Row(name, _outcome(network), _outcome(verdict.passed), reason)


def honest() -> Row:
    """The same node without a cheat: both take it, so the catalogue says something."""
    return judged("honest", answered())


def _answers() -> Iterator[Row]:
    right = answered()
    known = JOB.known()

    def elsewhere(change: Callable[[Answered], Answered]) -> list[Answered]:
        return [one if row == known else change(one) for row, one in enumerate(right)]

    def invented(one: Answered) -> Answered:
        rng = np.random.default_rng(1)
        tokens = rng.integers(3, 600, len(one.tokens)).astype(np.int32)
        return Answered("It depends.", tokens, np.full(len(tokens), -0.5, np.float32))

    yield judged("invented output", [invented(one) for one in right])
    yield judged("only the sampled prompt answered, the others invented", elsewhere(invented))
    yield judged(
        "right tokens under a text of its own", elsewhere(lambda one: replace(one, text="Yes."))
    )
    yield judged(
        "one answer cut short",
        [replace(one, tokens=one.tokens[:9], logprobs=one.logprobs[:9], text="...")
         if row == (known + 1) % len(right) else one for row, one in enumerate(right)],
    )  # fmt: skip
    fresh = replace(JOB, secret="cd" * 32)
    yield _replayed(fresh)
    other = replace(JOB.request(), seed="00" * 16)
    yield judged("likely text, drawn without the seed", model().answer(other)[0])
    rounded = model(4).answer(JOB.request())[0]
    yield judged("a smaller model: weights of 4 bits", rounded)
    yield judged("weights of 8 bits", model(8).answer(JOB.request())[0])
    yield judged("forged times: says it worked longer than it took", right, claimed=9.0)
    yield judged("the right answer, too late", right, elapsed=60.0)


def _replayed(fresh: Job) -> Row:
    """A series comes again with the seed it had, in the network; here nothing comes again."""
    again = judged("", answered())
    ours = judged("", answered(), job=fresh)
    return Row("replayed answers", again.network_outcome, ours.windrow_outcome, ours.reason)


def started(**changes: Any) -> Started:
    common = _common(timestamp=NOW - timedelta(seconds=60))
    return Started(**common | {"executor_class": LLM_CLASS, "is_organic": True, "ttl": 7} | changes)


def finished(**changes: Any) -> Finished:
    took = {"time_started": NOW - timedelta(seconds=60), "time_took_us": 30_000_000}
    rest = {"score_str": "60.000000", "block_numbers": [1, 2]}
    return Finished(**_common(timestamp=NOW) | took | rest | changes)


def _common(**changes: Any) -> dict[str, Any]:
    keys = {"miner_hotkey": MINER.ss58_address, "validator_hotkey": VALIDATOR.ss58_address}
    return {"job_uuid": JOB.job_id} | keys | changes


def page(name: str, receipts: Sequence[Receipt], served_by: Keypair = CHEATS_MINER) -> Row:
    """A page on which the last receipt is the cheat's, and known to the network's validators."""
    content = page_bytes(tuple(receipts))
    try:
        network = _outcome(len(network_page(content).receipts) == len(receipts))
    except PageLost:
        network = f"{REFUSED}, and {len(receipts) - 1} honest receipts with it"
    taken = strict_page(content)
    terms = Terms({VALIDATOR.ss58_address}, served_by.ss58_address, NOW)
    counted = accept([(receipt, terms) for receipt in taken.receipts])
    reasons = [reason for _, reason in (*taken.refused, *counted.refused)]
    last = receipts[-1].payload
    return Row(name, network, _outcome(last in counted.receipts), "; ".join(reasons))


def by_cheat(payload: Payload) -> Receipt:
    own = {"miner_hotkey": CHEATS_MINER.ss58_address, "validator_hotkey": CHEAT.ss58_address}
    return signed(payload.model_copy(update=own), CHEAT.sign, CHEATS_MINER.sign)


def by_both(payload: Payload) -> Receipt:
    return signed(payload, VALIDATOR.sign, MINER.sign)


def _receipts() -> Iterator[Row]:
    yield page("self-signed receipts", [by_cheat(finished(job_uuid=OTHER_ID))])
    yield page("squatted job id: another's job, another class", [by_cheat(started())])
    for words, score in (
        ("negative amount", "-100000"),
        ("NaN for an amount", "nan"),
        ("a word for an amount", "lots"),
        ("more than a day for an amount", "999999999"),
    ):
        yield page(words, [by_both(finished(score_str=score))], MINER)
    yield page("a job id that is no UUID", [by_both(started(job_uuid="hello"))], MINER)
    yield page("forged times: ends tomorrow", [
        by_both(finished(timestamp=NOW + timedelta(days=1)))
    ], MINER)  # fmt: skip
    yield page("the same block pays twice", [by_both(finished(block_numbers=[1, 1]))], MINER)
    yield page("another miner's receipts served as its own", [by_both(finished())])
    twice = [by_both(finished()), by_both(finished(score_str="600.000000"))]
    yield page("a job told again with ten times the amount", twice, MINER)
    broken = by_both(finished(job_uuid=OTHER_ID)).model_copy(update={"miner_signature": "0xzz"})
    yield page("a line that stops the reader", [by_both(finished()), broken], MINER)
    dealt = [by_both(finished())]
    self_dealt = page("a known validator pays its own miner for nothing", dealt, MINER)
    yield self_dealt._replace(reason="receipts do not show work: the job's answers do")


def _flows() -> Iterator[Row]:
    timing = wire.Timing(
        allowed_leeway=5,
        download_time_limit=10,
        execution_time_limit=30,
        upload_time_limit=10,
        streaming_start_time_limit=0,
    )
    terms = JobTerms(JOB.job_id, LLM_CLASS, timing, value=50, blocks=(1, 2))
    steps: tuple[wire.OfMiner, ...] = (
        wire.AcceptJob(job_uuid=JOB.job_id),
        wire.ExecutorReady(job_uuid=JOB.job_id),
        wire.VolumesReady(job_uuid=JOB.job_id),
        wire.ExecutionDone(job_uuid=JOB.job_id),
        wire.JobFinished(job_uuid=JOB.job_id, docker_process_stdout="", docker_process_stderr=""),
    )
    for name, times in (
        ("all messages of a job in one burst", (0.2,) * 5),
        ("a job done within 30 ms of its start", (0.01, 0.02, 0.03, 0.04, 0.05)),
        ("done before its volumes were ready", (1.0, 3.0, 15.0, 10.0, 20.0)),
    ):
        arrivals = [Arrival(at, step) for at, step in zip(times, steps, strict=True)]
        network, ours = network_flow(terms, arrivals), strict_flow(terms, arrivals)
        paid = [f"{flow.sent[-1].score} s paid" for flow in (network, ours)]
        yield Row(name, paid[0], paid[1], ours.reason or "pays the work that was seen")


def _others() -> Iterator[Row]:
    login = logins.ValidatorLogin(
        validator_hotkey=VALIDATOR.ss58_address,
        miner_hotkey=MINER.ss58_address,
        timestamp=int(NOW.timestamp()) + 86_400,
        signature="",
    )
    signature = written(VALIDATOR.sign(login.text().encode()))
    login = login.model_copy(update={"signature": signature})
    arguments = (login, MINER.ss58_address, VALIDATOR.ss58_address, NOW.timestamp())
    network, (ours, reason) = logins.network_login(*arguments), logins.strict_login(*arguments)
    yield Row("a login signed for tomorrow", _outcome(network[0]), _outcome(ours), reason)

    excuse = [signed(started(ttl=10**6), VALIDATOR.sign, CHEAT.sign)]
    declined = Declined(OTHER_ID, LLM_CLASS, MINER.ss58_address, True, NOW)
    excusers = Excusers({VALIDATOR.ss58_address: 50_000.0}, 30_000.0, CHEAT.ss58_address)
    yield Row(
        "an excuse that its miner never signed, and that never ends",
        _outcome(bool(network_excuses(excuse, declined, excusers))),
        _outcome(bool(strict_excuses(excuse, declined, excusers, ()))),
        "both sides sign an excuse, and no executor lives longer than 1200 s",
    )


def _outcome(taken: bool) -> str:
    return ACCEPTED if taken else REFUSED
