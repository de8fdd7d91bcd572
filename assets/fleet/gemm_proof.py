"""A matrix product that takes the work it says, in place of compute-subnet's."""

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.partitions import nodes
from windrow.assets.fleet.stage import stage
from windrow.resources.chain import Chain
from windrow.resources.fleet.access import FleetAccess
from windrow.resources.fleet.nodes import TaskFailed
from windrow.resources.warehouse.lake import Lake

NETWORK = "compute-subnet"


@dg.asset(
    partitions_def=nodes,
    group_name="fleet",
    deps=["attestation"],
    kinds={"torch"},
    check_specs=[verdict_of("gemm_proof")],
)
def gemm_proof(
    context: dg.AssetExecutionContext,
    fleet: dg.ResourceParam[FleetAccess],
    lake: dg.ResourceParam[Lake],
    chain: dg.ResourceParam[Chain],
) -> dg.MaterializeResult:
    """Rows of a product of full entropy, committed before they are picked (compute-subnet §7, §13).

    The network's own test is made beside it, for its verdict. It takes no GPU to pass; this one
    does, so it stands for the truth.
    """
    from windrow.assets.fleet.gemm_rounds import prove_product

    with stage(context, fleet, lake, chain) as step:
        if step.concerns(NETWORK):
            try:
                prove_product(step, NETWORK)
            except TaskFailed as error:
                step.refused(NETWORK, error, network_verdict=None)
    return result(step)
