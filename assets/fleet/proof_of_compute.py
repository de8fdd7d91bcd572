"""Gonka's proof of compute, with a sample that nobody could foresee."""

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.stage import node_asset, step_of

NETWORK = "gonka"


@node_asset(
    deps=["attestation"],
    kinds={"torch"},
    check_specs=[verdict_of("proof_of_compute")],
)
def proof_of_compute(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Distances of a range of nonces under the model of a fresh block hash (gonka §9)."""
    from windrow.assets.fleet.compute_rounds import prove_compute

    with step_of(context) as step:
        if step.concerns(NETWORK):
            with step.answering(NETWORK, network_verdict=False):
                prove_compute(step)
    return result(step)
