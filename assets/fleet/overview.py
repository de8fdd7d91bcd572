"""A line a node: where it stands, what it proved, how it is set up, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windrow.assets.fleet.standings import standings
from windrow.engine.fleet.cards import NO_CARD
from windrow.engine.fleet.inventory import Fleet, Node
from windrow.engine.fleet.stages import concerned
from windrow.resources.warehouse.lake import Lake

WRONG = """
WITH newest AS (
    SELECT * FROM node_checks WHERE list_contains(?, node)
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY node, stage ORDER BY observed_at DESC)
)
SELECT node, stage, "check", network, network_verdict, windrow_verdict, measured, needed, reason,
    remedy
FROM newest
WHERE windrow_verdict IS FALSE OR network_verdict IS FALSE
ORDER BY windrow_verdict NULLS LAST, observed_at, "check", network
"""
SKIPPED = """
WITH newest AS (
    SELECT * FROM node_checks WHERE list_contains(?, node)
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY node, stage ORDER BY observed_at DESC)
)
SELECT node, stage, max(reason) FILTER (reason LIKE 'skipped%') AS reason
FROM newest
GROUP BY node, stage
HAVING bool_and(windrow_verdict IS NULL)
ORDER BY node, stage
"""
"""Steps that ended without any verdict: a node that says its GPUs are busy shows nothing."""
CARDS = """
WITH newest AS (
    SELECT * FROM node_checks WHERE list_contains(?, node)
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY node, stage ORDER BY observed_at DESC)
)
SELECT node, stage, reason FROM newest
WHERE "check" = 'cards' AND windrow_verdict IS NULL
ORDER BY measured, observed_at
"""
"""Steps that the node's cards should have answered, and did not or not all of them."""
NO_VERDICT = "no verdict"
PROOFS = ("attestation", "hash_challenge", "gemm_proof", "proof_of_compute", "llm_job")


@dataclass(frozen=True)
class NodeLine:
    """A node in a line. gpus: as declared, `-` for none. since: unix seconds, 0 for never.

    proofs: what came of them, or what is missing of the cards: `no card`, `7 of 8`, `other card`.
    wrong: newest verdicts that say no. unproven: its attestation showed nothing, or not its cards.
    """

    name: str
    gpus: str
    state: str
    since: float
    proofs: str
    set_up: str
    why: str
    wrong: int
    unproven: bool


def overview(lake: Lake, fleet: Fleet, names: Sequence[str], now: float) -> list[NodeLine]:
    """The lines of these nodes, in this order."""
    wrong = lake.query(WRONG, [list(names)]).to_pylist()
    cards = lake.query(CARDS, [list(names)]).to_pylist()
    without = lake.query(SKIPPED, [list(names)]).to_pylist()
    found = standings(lake, names, now)
    lines = []
    for name in names:
        node, stands = fleet.nodes[name], found[name]
        mine = [row for row in wrong if row["node"] == name]
        proofs = [row for row in mine if row["stage"] in PROOFS]
        asked = concerned(PROOFS, node.networks)
        missing = [row for row in cards if row["node"] == name and row["stage"] in asked]
        missing += _gone(node, mine)
        skipped = [row for row in without if row["node"] == name and row["stage"] in asked]
        why = f"{stands.stage}: {stands.detail}" if stands.reason else ""
        why = why or "; ".join(f"{row['check']}: {row['reason']}" for row in proofs[:2])
        why = why or "; ".join(
            f"{row['stage']}: {row['reason'] or NO_VERDICT}" for row in [*missing[:1], *skipped[:2]]
        )
        why = why or "; ".join(f"{row['check']}: {row['reason']}" for row in mine[:2])
        state = f"failed ({stands.reason})" if stands.state == "failed" else stands.state
        unproven = False
        if state == "verified" and proofs:
            state = "refused"
        elif state == "verified" and (missing or any(row["stage"] == PROOFS[0] for row in skipped)):
            state, unproven = "unproven", True
        lines.append(
            NodeLine(
                name=name,
                gpus=f"{node.gpu_count} {node.gpu}" if node.gpu else "-",
                state=state,
                since=stands.since,
                proofs=_proofs(proofs, stands.state, missing, skipped),
                set_up=_count([row for row in mine if row["stage"] not in PROOFS], stands.state),
                why=why,
                wrong=len(mine),
                unproven=unproven,
            )
        )
    return lines


def _gone(node: Node, wrong: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Declared cards that the newest facts miss, whatever an older proof has shown."""
    found = []
    for row in wrong:
        fewer = row["check"] == "drift_gpu_count" and row["measured"] < row["needed"]
        if node.gpu is not None and (fewer or row["check"] == "drift_gpu"):
            label = "other card" if not fewer else _of(row["measured"], row["needed"])
            found.append({"stage": row["stage"], "reason": f"{label}: {row['reason']}"})
    return found


def _of(seen: float, needed: float) -> str:
    return f"{seen:.0f} of {needed:.0f}" if seen else NO_CARD


def _proofs(
    wrong: Sequence[object],
    state: str,
    missing: Sequence[Mapping[str, Any]],
    skipped: Sequence[object],
) -> str:
    if wrong or state != "verified":
        return _count(wrong, state)
    if missing:
        return str(missing[0]["reason"]).partition(":")[0]
    return "skipped" if skipped else "fine"


def _count(rows: Sequence[object], state: str) -> str:
    if rows:
        return f"{len(rows)} wrong"
    return "fine" if state == "verified" else "-"
