"""The weights a validator would set, every factor shown, and sent only when asked to."""

import math
from typing import Any

import dagster as dg

from windrow.assets.validation.memory import remember
from windrow.assets.window.faults import faults_kept
from windrow.assets.window.partitions import windows
from windrow.assets.window.stored import stored_table
from windrow.assets.window.tracking import track
from windrow.networks.grail.validation.service import (
    ServiceState,
    WeightsDue,
    submission_interval,
)
from windrow.networks.grail.validation.weights import (
    MAINNET,
    WeightPolicy,
    period_rollouts,
    recent_windows,
)
from windrow.networks.grail.windows import validator_target
from windrow.resources.chain import Chain
from windrow.resources.configuration.settings import Settings
from windrow.resources.miners import Miners
from windrow.resources.tracking.metrics import validation_metrics
from windrow.resources.tracking.tracker import Tracker
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS


class WeightsConfig(dg.Config):
    """The rules to weigh by; the defaults are the network's (grail-validation §15)."""

    exponent: float = 4.0
    burn_percentage: float = 90.0
    rolling_windows: int = 12
    capped: bool = True


@dg.asset(
    partitions_def=windows,
    group_name="validation",
    deps=["scores"],
    kinds={"bittensor"},
    check_specs=[
        dg.AssetCheckSpec(
            "sound", asset="weights", blocking=True, description="finite, none negative, sum 1"
        )
    ],
)
def weights(
    context: dg.AssetExecutionContext,
    config: WeightsConfig,
    settings: dg.ResourceParam[Settings],
    chain: dg.ResourceParam[Chain],
    miners: dg.ResourceParam[Miners],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
    tracker: dg.ResourceParam[Tracker],
) -> dg.MaterializeResult:
    """Weights after this window from the last windows' scores, whatever else was scored since.

    They go to the chain only with WINDROW_SET_WEIGHTS=yes, under the network's own rules, once an
    interval, when the newest closed window is weighed; a refusal fails the step.
    """
    window, validator = int(context.partition_key), wallet.hotkey
    policy = WeightPolicy(
        rolling_windows=config.rolling_windows,
        exponent=config.exponent,
        burn_percentage=config.burn_percentage,
        capped=config.capped,
    )
    with faults_kept(lake, window, validator, "weights", context.run.run_id, chain=chain):
        last = chain.weights(validator)
        state = remember(
            lake,
            validator,
            window,
            stored_table(lake, "scores", window, validator),
            submission_interval(last.block) if last else -1,
        )
        hotkeys = miners.hotkeys()
        uids = list(range(len(hotkeys)))
        found = state.weights(hotkeys, uids, window, policy).weights
        due = state.weights_due(chain.block())
        sound = all(math.isfinite(w) and w >= 0 for w in found) and math.isclose(sum(found), 1.0)
        newest = window == validator_target(chain.block())
        submitted = (
            settings.set_weights
            and newest
            and sound
            and policy == MAINNET
            and due is WeightsDue.DUE
        )
        if submitted:
            chain.set_weights(validator, dict(zip(hotkeys, found, strict=True)))
        rows = [
            _row(window, validator, hotkey, uid, weight, state, policy) | {"submitted": submitted}
            for hotkey, uid, weight in zip(hotkeys, uids, found, strict=True)
        ]
        table = DATASETS["weights"].table(rows)
        lake.write("weights", window, validator, table, run_id=context.run.run_id, replace=True)
    track(context, tracker, lake, validation_metrics, validator)
    return dg.MaterializeResult(
        metadata={
            "miners": len(hotkeys) - 1,
            "burnt": found[0] if found else 0.0,
            "earned": sum(found[1:]),
            "due": str(due),
            "submitted": submitted,
            "windows_processed": state.windows,
            "rules": dg.MetadataValue.json(config.model_dump()),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="sound", passed=sound, metadata={"sum": float(sum(found))}
            )
        ],
    )


def _row(
    window: int,
    validator: str,
    hotkey: str,
    uid: int,
    weight: float,
    state: ServiceState,
    policy: WeightPolicy,
) -> dict[str, Any]:
    """A weight with every factor of it (§15.2-15.4)."""
    metrics = state.metrics.get(hotkey, {})
    recent = [metrics[w] for w in recent_windows(window, policy.rolling_windows) if w in metrics]
    available = state.availability.count(hotkey)
    rollouts = period_rollouts(metrics, window, available, policy)
    share = rollouts / policy.cap
    return {
        "window_start": window,
        "hotkey": hotkey,
        "validator": validator,
        "uid": uid,
        "windows_checked": len(recent),
        "windows_available": available,
        "unique_sum": sum(metric.estimated_unique for metric in recent),
        "extrapolated": rollouts,
        "cap_share": share,
        "raw_score": share**policy.exponent,
        "exponent": policy.exponent,
        "burn": (policy.burn_percentage or 0.0) / 100.0,
        "weight": weight,
    }
