"""The two rounds of an attestation, asked and judged."""

import json
import secrets
import time
from collections.abc import Mapping

from windrow.assets.fleet.stage import Stage
from windrow.engine.fleet.attestation_plan import (
    CPU_UUID,
    Challenge,
    Plan,
    challenge,
    opening_request,
    parse_challenge,
    parse_opening,
    plan_for,
    small_plan,
)
from windrow.engine.fleet.attestation_timing import ROUND_TRIP
from windrow.engine.fleet.attestation_verify import Expectation, verify
from windrow.engine.fleet.attestation_wire import (
    Claimed,
    WrongAnswer,
    commit_limit,
    opening_limit,
    read_commit,
)
from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.fact_formats import short_ref
from windrow.engine.fleet.frames import BadFrame
from windrow.resources.fleet.nodes import Answer

GOOD_TIMES = """
SELECT seconds FROM attestations
WHERE node = ? AND kind = 'attestation' AND gpu_uuid = ? AND size = ? AND bytes = ?
  AND driver = ? AND backend = ? AND way = ? AND passed
ORDER BY observed_at DESC LIMIT 20
"""
"""Of the same card, plan, driver, backend and way to multiply: times of others say nothing here."""

PINGS = 3
UNSTEADY = 3.0
"""The way may take so many times as long as the slowest ping, and a tenth of a second more."""


def attest(step: Stage) -> None:
    """Ask, verify, and leave checks and proofs with the step. Raises NodeError."""
    budget = step.fleet.work.processor_bytes
    gpus = step.facts().gpus
    plans = {gpu.uuid: plan_for(gpu.vram_bytes) for gpu in gpus if gpu.vram_bytes}
    step.checks += [_unsized(gpu.uuid) for gpu in gpus if gpu.uuid not in plans]
    if gpus and not plans:
        return
    if not plans:
        plans = {CPU_UUID: small_plan(budget)}
    caller = step.fleet.wallet.hotkey
    nonce = secrets.token_bytes(32)
    asked = challenge(step.node.name, caller, nonce, plans, budget=budget)
    _ask_and_verify(step, asked, plans)


def _unsized(uuid: str) -> NodeCheck:
    """A card that is not attested: without its memory, its work has no size."""
    return NodeCheck(
        "attestation",
        WINDROW,
        None,
        None,
        reason="skipped: the card's memory is not measured, so its work has no size",
        remedy="on a split card, sudo nvidia-smi -mig 0; else check that CUDA works: nvidia-smi",
        gpu=uuid,
    )


def _ask_and_verify(step: Stage, asked: bytes, plans: Mapping[str, Plan]) -> None:
    made = parse_challenge(asked)
    round_trip = _round_trip(step)
    commit = step.ask("attestation.commit", asked, max_bytes=commit_limit(made))
    randomness = secrets.token_bytes(32)  # nobody knew it while the devices worked
    request = opening_request(asked, randomness)
    limit = opening_limit(parse_opening(request))
    opened = step.ask("attestation.open", request, max_bytes=limit)
    driver = step.facts().driver
    began = time.process_time()
    proofs, checks = verify(
        asked,
        request,
        randomness,
        commit,
        opened,
        expectations=_expectations(step, plans, driver, _claims(commit, made)),
        rows=step.fleet.work.rows,
        round_trip=round_trip,
    )
    spent = time.process_time() - began
    step.checks += checks
    step.note_cards()
    wrong = {check.gpu for check in checks if check.windrow_verdict is False}
    for proof in proofs:
        plan, claimed = proof.plan, proof.claimed
        step.proof(
            gpu_uuid=_uuid(proof.uuid),
            backend=claimed.backend if claimed else None,
            driver=driver,
            way=claimed.way if claimed else None,
            seed=made.seed,
            size=plan.n,
            bytes=plan.resident_bytes,
            operations=plan.fill_operations,
            claimed_seconds=claimed.fill_seconds + claimed.walk_seconds if claimed else None,
            seconds=commit.seconds,
            verify_seconds=spent / len(proofs),
            error_probability=max(proof.bounds.rows, proof.bounds.walk),
            passed=proof.sound and not wrong & {proof.uuid, _uuid(proof.uuid), None},
            digest=proof.digest,
            replay=_replay(asked, randomness, commit, opened),
        )


def _round_trip(step: Stage) -> float:
    """Seconds to allow for the network; a node that answers pings late gains no more than 1 s."""
    slowest = max(step.ask("ping", b"", max_bytes=0).seconds for _ in range(PINGS))
    return min(ROUND_TRIP, UNSTEADY * slowest + 0.1)


def _claims(commit: Answer, made: Challenge) -> Mapping[str, Claimed]:
    """What each device worked with, by its own word; nothing of an answer that cannot be read."""
    try:
        claimed, _ = read_commit(commit.body, made)
    except (BadFrame, WrongAnswer):  # the verdict will say so
        return {}
    return dict(zip(sorted(made.plans), claimed, strict=True))


def _expectations(
    step: Stage, plans: Mapping[str, Plan], driver: str | None, claims: Mapping[str, Claimed]
) -> Mapping[str, Expectation]:
    """What each card is held to; nothing for a processor, whose speed is anybody's."""
    gpus = {gpu.uuid: gpu for gpu in step.facts().gpus if gpu.uuid in plans}
    found = {}
    for uuid, gpu in gpus.items():
        plan, good = plans[uuid], []
        if claim := claims.get(uuid):
            alike = [plan.n, plan.resident_bytes, driver, claim.backend, claim.way]
            rows = step.lake.query(GOOD_TIMES, [step.node.name, uuid, *alike])
            good = rows["seconds"].to_pylist()
        found[uuid] = Expectation(
            card=short_ref(gpu),
            memory=gpu.vram_bytes,
            history=tuple(good),
        )
    return found


def _uuid(uuid: str) -> str | None:
    return None if uuid == CPU_UUID else uuid


def _replay(asked: bytes, randomness: bytes, *answers: Answer) -> str:
    """The answers follow from the challenge, bit for bit on any device, so it is enough."""
    return json.dumps(
        {
            "challenge": asked.decode(),
            "randomness": randomness.hex(),
            "seconds": [answer.seconds for answer in answers],
        }
    )
