"""What fleet.yaml says of a node."""

from typing import Any

import dagster as dg

from windrow.assets.fleet.stage import Stage, node_asset, step_of
from windrow.engine.fleet.stages import STAGES, concerned


@node_asset()
def inventory(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The declaration of a node, kept as it was; every verification begins here.

    Steps that do not concern the node get their row here, and need not be run for it.
    """
    with step_of(context) as step:
        row = declared(step, None)
        step.write("nodes", [row])
        for other in sorted(set(STAGES) - set(concerned(STAGES, step.node.networks))):
            step.leave_out(other)
    shown = {name: str(value) for name, value in row.items() if value not in (None, [], "")}
    return dg.MaterializeResult(
        metadata={
            "declaration": dg.MetadataValue.table(
                [dg.TableRecord({"field": k, "value": v}) for k, v in sorted(shown.items())]
            ),
            "nodes_declared": len(step.fleet.fleet().nodes),
        }
    )


def declared(step: Stage, drift: list[str] | None) -> dict[str, Any]:
    """A row of `nodes`. drift: None where the machine was not looked at."""
    node = step.node
    return {
        "host": node.host,
        "transport": node.transport,
        "networks": list(node.networks),
        "gpu": node.gpu,
        "gpu_count": node.gpu_count,
        "hourly_cost": node.hourly_cost,
        "hardware_class": node.hardware_class,
        "declared": node.model_dump_json(),
        "drift": drift,
    }
