"""The whole fleet on one page: a line a node, and the times of their attestations."""

import time
from datetime import UTC, datetime

import dagster as dg

from windrow.assets.fleet.findings import LEAST_POINTS
from windrow.assets.fleet.overview import NodeLine, overview
from windrow.engine.fleet.inventory import Node
from windrow.resources.fleet.access import FleetAccess
from windrow.resources.warehouse.lake import Lake

MOST_WHY = 300
TIMES = """
SELECT observed_at, node AS gpu, max(seconds) AS seconds, bool_and(passed) AS passed
FROM attestations
WHERE kind = 'attestation' AND seconds IS NOT NULL AND list_contains(?, node)
GROUP BY node, run_id, observed_at
QUALIFY row_number() OVER (PARTITION BY node ORDER BY observed_at DESC) <= 100
"""


@dg.asset(group_name="fleet", deps=["attestation"], kinds={"duckdb"})
def fleet_page(
    fleet: dg.ResourceParam[FleetAccess], lake: dg.ResourceParam[Lake]
) -> dg.MaterializeResult:
    """Where every declared node stands, as `windrow node list` has it, kept with its history."""
    declared = fleet.fleet()
    lines = overview(lake, declared, [*declared.nodes], time.time())
    metadata: dict[str, object] = {
        "nodes": len(lines),
        "verified": sum(line.state == "verified" for line in lines),
        "dollars_per_hour": round(sum(map(_cost, declared.nodes.values())), 2),
        "fleet": _table(lines),
    }
    times = lake.query(TIMES, [[*declared.nodes]]).to_pylist()
    if len(times) >= LEAST_POINTS:
        from windrow.assets.window.plots import timing_plot

        metadata["timing"] = timing_plot(times)
    return dg.MaterializeResult(metadata=metadata)


def _cost(node: Node) -> float:
    return node.hourly_cost * max(node.gpu_count, 1)


def _table(lines: list[NodeLine]) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {
                "node": line.name,
                "GPUs": line.gpus,
                "state": line.state,
                "since": f"{datetime.fromtimestamp(line.since, UTC):%Y-%m-%d %H:%M}"
                if line.since
                else "-",
                "proofs": line.proofs,
                "set-up": line.set_up,
                "why": line.why[:MOST_WHY],
            }
        )
        for line in lines
    ]
    return dg.MetadataValue.table(records or [dg.TableRecord({"node": "none declared"})])
