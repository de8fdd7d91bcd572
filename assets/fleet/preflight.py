"""Whether a machine is set up as the networks' guides want it, and what mends it."""

import time

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.preflight_outside import members, outside
from windrow.assets.fleet.stage import node_asset, step_of
from windrow.engine.fleet.preflight import MAX_ANSWER, Asked, challenge, parse
from windrow.engine.fleet.preflight_looked import Looked
from windrow.engine.fleet.preflight_rules import preflight_checks


@node_asset(deps=["facts"], check_specs=[verdict_of("preflight")])
def preflight(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Every rule of the guides that concerns the node (chutes §12, gonka §3 and the others)."""
    with step_of(context) as step:
        node, fleet = step.node, step.fleet
        asked = Asked(ports=node.public_ports, models=tuple(model.name for model in node.models))
        answer = step.ask(
            "preflight", challenge(asked), max_bytes=MAX_ANSWER, seconds=fleet.work.look_seconds
        )
        received = time.time()
        measured = parse(answer.body)
        # Looking around takes the node longer than the way there and back.
        way_back = max(0.0, answer.seconds - measured.seconds) / 2
        step.checks += preflight_checks(
            Looked(
                node=node,
                wireguard=fleet.fleet().wireguard,
                facts=step.facts(),
                measured=measured,
                clock_offset=measured.clock - (received - answer.seconds + way_back),
                members=members(
                    node, context.resources.chain, node.agent_hotkey or fleet.wallet.hotkey
                ),
                **outside(step),
            )
        )
    return result(step)
