"""`windrow node list`: where every node stands."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from windrow.engine.fleet.inventory import Fleet
from windrow.engine.fleet.stages import concerned
from windrow.pipelines.commands.printing import cell
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.inventory_file import FleetFile
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
NOTHING = "no verdict"
PROOFS = ("attestation", "hash_challenge", "gemm_proof", "proof_of_compute", "llm_job")


def show(out: Console) -> None:
    """Print every declared node. Raises InvalidFleet."""
    settings = Settings.read()
    fleet = FleetFile(settings.fleet).load()
    if not fleet.nodes:
        out.print(f"{settings.fleet} declares no nodes; windrow node add declares one")
        return
    print_nodes(out, Lake(settings.lake), fleet, [*fleet.nodes])


def print_nodes(out: Console, lake: Lake, fleet: Fleet, names: Sequence[str]) -> int:
    """Print a line a node; how many of their newest verdicts say no, or attestations nothing."""
    from windrow.assets.fleet.standings import standings

    wrong = lake.query(WRONG, [list(names)]).to_pylist()
    without = lake.query(SKIPPED, [list(names)]).to_pylist()
    unproven = 0
    found = standings(lake, names, time.time())
    table = Table(
        title="nodes", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    cards = any(fleet.nodes[name].gpu for name in names)
    for column in ("node", *(["GPUs"] if cards else []), "state"):
        table.add_column(column, overflow="fold", max_width=16)
    table.add_column("since", no_wrap=True)
    for column in ("proofs", "set-up"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold", min_width=16)
    for name in names:
        node, stands = fleet.nodes[name], found[name]
        mine = [row for row in wrong if row["node"] == name]
        proofs = [row for row in mine if row["stage"] in PROOFS]
        asked = concerned(PROOFS, node.networks)
        skipped = [row for row in without if row["node"] == name and row["stage"] in asked]
        why = f"{stands.stage}: {stands.detail}" if stands.reason else ""
        why = why or "; ".join(f"{row['check']}: {row['reason']}" for row in proofs[:2])
        why = why or "; ".join(f"{row['stage']}: {row['reason'] or NOTHING}" for row in skipped[:2])
        why = why or "; ".join(f"{row['check']}: {row['reason']}" for row in mine[:2])
        state = f"failed ({stands.reason})" if stands.state == "failed" else stands.state
        if state == "verified" and proofs:
            state = "refused"
        elif state == "verified" and any(row["stage"] == PROOFS[0] for row in skipped):
            state = "unproven"
            unproven += 1
        table.add_row(
            name,
            *([f"{node.gpu_count} {node.gpu}" if node.gpu else "-"] if cards else []),
            cell(state),
            _when(stands.since),
            _count(proofs, stands.state, skipped=bool(skipped)),
            _count([row for row in mine if row["stage"] not in PROOFS], stands.state),
            cell(why, most=240),
        )
    out.print(table)
    return len(wrong) + unproven


def _count(rows: Sequence[object], state: str, *, skipped: bool = False) -> str:
    if rows:
        return f"{len(rows)} wrong"
    if skipped and state == "verified":
        return "skipped"
    return "fine" if state == "verified" else "-"


def _when(since: float) -> str:
    return f"{datetime.fromtimestamp(since, UTC):%m-%d %H:%M}" if since else "-"
