"""What keeps the fleet verified, its page fresh, and its partitions what fleet.yaml says."""

import time
from collections.abc import Mapping, Sequence

import dagster as dg

from windrow.assets.fleet.partitions import nodes
from windrow.assets.fleet.standings import declarations, last_mishap, machines, standings
from windrow.engine.fleet.inventory import Fleet, Node
from windrow.engine.fleet.stages import STAGES, Due, Machine, concerned, due
from windrow.pipelines.jobs import show_fleet, verify_node
from windrow.resources.fleet.access import FleetAccess
from windrow.resources.warehouse.lake import Lake

MOST_RUNS = 20
"""Runs requested in one tick; the next tick goes on from there."""


@dg.sensor(
    job=verify_node,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Verifies new, stale and changed nodes; goes on where a verification failed.",
)
def stale_nodes(
    context: dg.SensorEvaluationContext,
    fleet: dg.ResourceParam[FleetAccess],
    lake: dg.ResourceParam[Lake],
) -> dg.SensorResult | dg.SkipReason:
    """A run for every node that is due, the steps that are left of it, each reason once.

    A fleet.yaml that cannot be used fails the tick, and everything stays as it was.
    """
    declared = fleet.fleet()
    known = set(context.instance.get_dynamic_partitions(nodes.name))
    requests = [
        request(declared.nodes[name], what) for name, what in whats_due(declared, lake, time.time())
    ]
    new, gone = declared.nodes.keys() - known, known - declared.nodes.keys()
    if not (requests or new or gone):
        return dg.SkipReason(f"{len(declared.nodes)} nodes, none of them due")
    changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if new:
        changes.append(nodes.build_add_request(sorted(new)))
    if gone:
        changes.append(nodes.build_delete_request(sorted(gone)))
    return dg.SensorResult(run_requests=requests[:MOST_RUNS], dynamic_partitions_requests=changes)


@dg.schedule(
    job=show_fleet,
    cron_schedule="53 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The page of the whole fleet, every hour, where any node is declared.",
)
def hourly_fleet_page(
    fleet: dg.ResourceParam[FleetAccess],
) -> dg.RunRequest | dg.SkipReason:
    """One run, or none where fleet.yaml declares no node."""
    return dg.RunRequest() if fleet.fleet().nodes else dg.SkipReason("no node is declared")


def whats_due(declared: Fleet, lake: Lake, now: float) -> list[tuple[str, Due]]:
    """Every node that is due, and for what, those never verified first."""
    if not declared.nodes:
        return []
    names = declared.nodes.keys()
    seen = machines(lake, names, now)
    mishap = last_mishap(lake)
    then = declarations(lake, names)
    found = []
    for name, standing in standings(lake, names, now).items():
        node = declared.nodes[name]
        mines = node.transport == "local" and "grail" in node.networks
        verified, newest = _then_and_now(seen, name, standing.since)
        what = due(
            standing,
            verified,
            newest,
            mishap if mines else 0.0,
            now,
            declared_anew=then.get(name) != node.model_dump_json(),
        )
        if what is not None:
            found.append((name, what))
    return sorted(found, key=lambda pair: pair[1].reason != "new")


def request(node: Node, what: Due) -> dg.RunRequest:
    """The run of a node that is due: the steps that concern it."""
    stages = concerned(what.stages, node.networks)
    return dg.RunRequest(
        f"verify:{node.name}:{what.reason}:{what.marker}",
        partition_key=node.name,
        asset_selection=None if stages == STAGES else [dg.AssetKey(stage) for stage in stages],
        tags={"node": node.name, "reason": what.reason[:63]},
    )


def _then_and_now(
    seen: Mapping[str, Sequence[Machine]], name: str, verified_at: float
) -> tuple[Machine | None, Machine | None]:
    looks = seen.get(name, [])
    then = [look for look in looks if look.at <= verified_at]
    return then[-1] if then else None, looks[-1] if looks else None
