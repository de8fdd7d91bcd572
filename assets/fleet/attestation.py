"""What a node's devices have and can do, proved: two rounds, all devices at once."""

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.partitions import nodes
from windrow.assets.fleet.stage import stage
from windrow.engine.fleet.checks import WINDROW
from windrow.resources.chain import Chain
from windrow.resources.fleet.access import FleetAccess
from windrow.resources.fleet.nodes import TaskFailed
from windrow.resources.warehouse.lake import Lake


@dg.asset(
    partitions_def=nodes,
    group_name="fleet",
    deps=["preflight"],
    kinds={"torch"},
    check_specs=[verdict_of("attestation")],
)
def attestation(
    context: dg.AssetExecutionContext,
    fleet: dg.ResourceParam[FleetAccess],
    lake: dg.ResourceParam[Lake],
    chain: dg.ResourceParam[Chain],
) -> dg.MaterializeResult:
    """Memory filled, kept and walked over on every device; docs/attestation.md says what it proves.

    A machine without a GPU is asked for little, on its processor, and a row says so.
    """
    # torch is imported when it is needed, not with the definitions
    from windrow.assets.fleet.attestation_rounds import attest

    with stage(context, fleet, lake, chain) as step:
        try:
            attest(step)
        except TaskFailed as error:
            step.refused(WINDROW, error, network_verdict=None)
    return result(step)
