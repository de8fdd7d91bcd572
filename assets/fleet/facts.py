"""What a node is: its own word, held against its declaration and the look before."""

import time
from typing import Any

import dagster as dg

from windrow.assets.fleet.findings import result
from windrow.assets.fleet.inventory import declared
from windrow.assets.fleet.stage import NoFacts, Stage, node_asset, step_of
from windrow.engine.fleet.drift import drift_checks, drift_of
from windrow.engine.fleet.fact_formats import chutes_devices, perf_info, short_ref
from windrow.engine.fleet.facts import (
    MAX_ANSWER,
    BadFacts,
    Facts,
    challenge,
    facts_json,
    parse_facts,
)
from windrow.engine.fleet.inventory import Node

ELSEWHERE_SECONDS = 24 * 3600.0
ELSEWHERE = """
SELECT uuid, arg_max(node, observed_at) AS node FROM node_gpus
WHERE node <> ? AND observed_at > ? AND list_contains(?, uuid) GROUP BY uuid
"""


@node_asset(
    deps=["inventory"],
    check_specs=[
        dg.AssetCheckSpec(
            "drift", asset="facts", description="the machine is the one that fleet.yaml declares"
        )
    ],
)
def facts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Processor, memory, disk, network and GPUs as the machine tells them."""
    with step_of(context) as step:
        before = _before(step)
        # Only compute-subnet wants speeds, which take seconds to measure.
        asked = challenge(speeds="compute-subnet" in step.node.networks)
        answer = step.ask(
            "facts", asked, max_bytes=MAX_ANSWER, seconds=step.fleet.work.look_seconds
        )
        answered_at = time.time()
        found = parse_facts(answer.body)
        offset = found.clock - (answered_at - answer.seconds / 2)
        step.checks += drift_checks(
            step.node, found, before=before, elsewhere=_elsewhere(step, found)
        )
        step.write("node_facts", [_row(found, offset)])
        if found.gpus:
            step.write("node_gpus", _gpu_rows(found))
        step.write("nodes", [declared(step, drift_of(step.checks))])
        step.remembered.facts = found
    return result(
        step,
        {
            "system": found.system,
            "processor": f"{found.cpu_model}, {found.cpu_threads} threads",
            "ram_gib": round(found.ram_bytes / 2**30, 1),
            "gpus": ", ".join(gpu.name for gpu in found.gpus) or "none",
            "driver": found.driver or "none",
            "clock_offset_seconds": round(offset, 2),
            **_as_networks_have_it(step.node, found),
        },
        check="drift",
    )


def _as_networks_have_it(node: Node, found: Facts) -> dict[str, dg.JsonMetadataValue]:
    """The facts in the formats of the node's networks, where a network has one."""
    formats: dict[str, dg.JsonMetadataValue] = {}
    if "compute-subnet" in node.networks:
        formats["compute_subnet"] = dg.MetadataValue.json(perf_info(found))
    if "chutes" in node.networks and found.gpus:
        identifier = node.gpu or short_ref(found.gpus[0]) or ""
        formats["chutes"] = dg.MetadataValue.json(chutes_devices(found, identifier))
    return formats


def _before(step: Stage) -> Facts | None:
    try:
        return step.facts()
    except (NoFacts, BadFacts):  # those of an older Windrow may be of another form
        return None


def _elsewhere(step: Stage, found: Facts) -> dict[str, str]:
    if not found.gpus:
        return {}
    uuids = [gpu.uuid for gpu in found.gpus]
    since = step.observed_at - ELSEWHERE_SECONDS
    rows = step.lake.query(ELSEWHERE, [step.node.name, since, uuids]).to_pylist()
    return {row["uuid"]: row["node"] for row in rows}


def _row(found: Facts, clock_offset: float) -> dict[str, Any]:
    same = ("hostname", "system", "cpu_model", "cpu_cores", "cpu_threads", "cpu_mhz", "ram_bytes")
    sizes = ("ram_available_bytes", "disk_bytes", "disk_free_bytes", "driver", "cuda")
    return {name: getattr(found, name) for name in (*same, *sizes)} | {
        "gpu_count": len(found.gpus),
        "address": None,
        "clock_offset_seconds": clock_offset,
        "facts": facts_json(found),
    }


def _gpu_rows(found: Facts) -> list[dict[str, Any]]:
    rows = []
    for gpu in found.gpus:
        row = gpu.model_dump(mode="json")
        unread = [f"{fact}: {code}" for fact, code in row.pop("unread").items()]
        mine = {"gpu_index": row.pop("index"), "gpu": short_ref(gpu), "unread": unread}
        rows.append(mine | row)
    return rows
