"""A matrix product that takes the work it says, in place of compute-subnet's."""

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.stage import node_asset, step_of

NETWORK = "compute-subnet"


@node_asset(
    deps=["attestation"],
    kinds={"torch"},
    check_specs=[verdict_of("gemm_proof")],
)
def gemm_proof(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Rows of a product of full entropy, committed before they are picked (compute-subnet §7, §13).

    The network's own test is made beside it, for its verdict. It takes no GPU to pass; this one
    does, so it stands for the truth.
    """
    from windrow.assets.fleet.gemm_rounds import prove_product

    with step_of(context) as step:
        if step.concerns(NETWORK):
            with step.answering(NETWORK, network_verdict=None):
                prove_product(step, NETWORK)
    return result(step)
