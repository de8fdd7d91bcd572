"""What a node's devices have and can do, proved: two rounds, all devices at once."""

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.stage import node_asset, step_of
from windrow.engine.fleet.checks import WINDROW


@node_asset(
    deps=["preflight"],
    kinds={"torch"},
    check_specs=[verdict_of("attestation")],
)
def attestation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Proof of the memory and the speed of every device.

    Memory is filled with exact matrix products, kept, and read in an unpredictable order.

    A machine without a GPU is asked for little, on its processor, and a row says so.
    """
    # torch is imported when it is needed, not with the definitions
    from windrow.assets.fleet.attestation_rounds import attest

    with step_of(context) as step, step.answering(WINDROW, network_verdict=None):
        attest(step)
    return result(step)
