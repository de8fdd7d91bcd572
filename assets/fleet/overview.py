"""A line a node: where it stands, what it proved, how it is set up, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from windrow.assets.fleet.standings import standings
from windrow.engine.fleet.inventory import Fleet
from windrow.engine.fleet.stages import concerned
from windrow.resources.warehouse.lake import Lake

WRONG = """
WITH newest AS (
    SELECT * FROM node_checks WHERE list_contains(?, node)
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY node, stage ORDER BY observed_at DESC)
)
SELECT node, stage, "check", network, network_verdict, windrow_verdict, reason, remedy
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
NO_VERDICT = "no verdict"
PROOFS = ("attestation", "hash_challenge", "gemm_proof", "proof_of_compute", "llm_job")


@dataclass(frozen=True)
class NodeLine:
    """A node in a line. gpus: as declared, `-` for none. since: unix seconds, 0 for never.

    wrong: newest verdicts that say no. unproven: its attestation showed nothing.
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
    without = lake.query(SKIPPED, [list(names)]).to_pylist()
    found = standings(lake, names, now)
    lines = []
    for name in names:
        node, stands = fleet.nodes[name], found[name]
        mine = [row for row in wrong if row["node"] == name]
        proofs = [row for row in mine if row["stage"] in PROOFS]
        asked = concerned(PROOFS, node.networks)
        skipped = [row for row in without if row["node"] == name and row["stage"] in asked]
        why = f"{stands.stage}: {stands.detail}" if stands.reason else ""
        why = why or "; ".join(f"{row['check']}: {row['reason']}" for row in proofs[:2])
        why = why or "; ".join(
            f"{row['stage']}: {row['reason'] or NO_VERDICT}" for row in skipped[:2]
        )
        why = why or "; ".join(f"{row['check']}: {row['reason']}" for row in mine[:2])
        state = f"failed ({stands.reason})" if stands.state == "failed" else stands.state
        unproven = False
        if state == "verified" and proofs:
            state = "refused"
        elif state == "verified" and any(row["stage"] == PROOFS[0] for row in skipped):
            state, unproven = "unproven", True
        lines.append(
            NodeLine(
                name=name,
                gpus=f"{node.gpu_count} {node.gpu}" if node.gpu else "-",
                state=state,
                since=stands.since,
                proofs=_count(proofs, stands.state, skipped=bool(skipped)),
                set_up=_count([row for row in mine if row["stage"] not in PROOFS], stands.state),
                why=why,
                wrong=len(mine),
                unproven=unproven,
            )
        )
    return lines


def _count(rows: Sequence[object], state: str, *, skipped: bool = False) -> str:
    if rows:
        return f"{len(rows)} wrong"
    if skipped and state == "verified":
        return "skipped"
    return "fine" if state == "verified" else "-"
