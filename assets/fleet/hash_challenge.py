"""compute-subnet's hash challenge, as long as the network would make it."""

import secrets
from dataclasses import replace

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.stage import Stage, node_asset, step_of
from windrow.engine.fleet.hash_challenge import MAX_ANSWER, NETWORK, challenge, request, verify
from windrow.networks.compute_subnet.challenge_stats import RECENT, next_difficulty

NEWEST = """
SELECT size, passed FROM attestations WHERE node = ? AND kind = 'hash_challenge'
ORDER BY observed_at DESC LIMIT 60
"""


@node_asset(
    deps=["attestation"],
    check_specs=[verdict_of("hash_challenge")],
)
def hash_challenge(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """A short password found from its salted hash, by the asker's clock (compute-subnet §5)."""
    with step_of(context) as step:
        if step.concerns(NETWORK):
            with step.answering(NETWORK, network_verdict=False):
                _challenge(step)
    return result(step)


def _challenge(step: Stage) -> None:
    asked, _ = challenge(_length(step), secrets.randbelow)
    answer = step.ask("hash_challenge", request(asked), max_bytes=MAX_ANSWER)
    found = verify(asked, answer.body, answer.seconds)
    if not step.facts().gpus:  # nobody said there was one, so that none is shown is no lie
        found = [found[0], *(replace(check, windrow_verdict=None) for check in found[1:])]
    step.checks += found
    if not step.facts().gpus:  # a card's work is not told from a processor's
        step.note_cards()
    step.proof(
        driver=step.facts().driver,
        seed=asked.salt,
        size=asked.length,
        operations=float(asked.candidates),
        seconds=answer.seconds,
        passed=found[0].windrow_verdict,
        replay=request(asked).decode(),
    )


def _length(step: Stage) -> int:
    """Characters of the password: as the network's controller has it, fewer for a processor."""
    if not step.facts().gpus:
        return step.fleet.work.password
    rows = step.lake.query(NEWEST, [step.node.name]).to_pylist()
    solved = [row["size"] for row in rows if row["passed"]]
    recent = solved[:RECENT]
    return next_difficulty(
        len(solved),
        sum(not row["passed"] for row in rows[:RECENT]),
        sum(recent) / len(recent) if recent else None,
    )
