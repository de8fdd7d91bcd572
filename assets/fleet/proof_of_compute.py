"""Gonka's proof of compute, with a sample that nobody could foresee."""

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.partitions import nodes
from windrow.assets.fleet.stage import stage
from windrow.resources.chain import Chain
from windrow.resources.fleet.access import FleetAccess
from windrow.resources.fleet.nodes import TaskFailed
from windrow.resources.warehouse.lake import Lake

NETWORK = "gonka"


@dg.asset(
    partitions_def=nodes,
    group_name="fleet",
    deps=["attestation"],
    kinds={"torch"},
    check_specs=[verdict_of("proof_of_compute")],
)
def proof_of_compute(
    context: dg.AssetExecutionContext,
    fleet: dg.ResourceParam[FleetAccess],
    lake: dg.ResourceParam[Lake],
    chain: dg.ResourceParam[Chain],
) -> dg.MaterializeResult:
    """Distances of a range of nonces under the model of a fresh block hash (gonka §9)."""
    from windrow.assets.fleet.compute_rounds import prove_compute

    with stage(context, fleet, lake, chain) as step:
        if step.concerns(NETWORK):
            try:
                prove_compute(step)
            except TaskFailed as error:
                step.refused(NETWORK, error, network_verdict=False)
    return result(step)
