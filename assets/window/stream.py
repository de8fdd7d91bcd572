"""Rollouts and their proofs, made together: groups are proved while later groups generate."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import dagster as dg

from windrow.assets.window import stream_rows
from windrow.assets.window.faults import faults_kept
from windrow.assets.window.partitions import OPEN_WINDOW_TAG, windows
from windrow.assets.window.stored import stored_checkpoint, stored_row, stored_table
from windrow.engine.mining.loop import WindowLoop
from windrow.engine.mining.plan import WindowPlan
from windrow.engine.mining.reprove import prove_again
from windrow.engine.mining.spool import Spool, identity_of
from windrow.engine.ports import Prover
from windrow.networks.grail.budget import TimeBudget
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.resources.chain import Chain, WindowClock, require_open
from windrow.resources.checkpoints.cache import CheckpointCache, VerifiedCheckpoint
from windrow.resources.configuration.settings import Settings
from windrow.resources.gpu_turns import GpuTurns
from windrow.resources.inference import Inference
from windrow.resources.progress import ProgressDisplay
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake
from windrow.resources.window_lock import window_lock


class StreamConfig(dg.Config):
    """max_groups: finished groups to stop at; 0: what WINDROW_MAX_GROUPS says."""

    max_groups: int = 0


@dg.multi_asset(
    name="window_stream",
    can_subset=True,
    partitions_def=windows,
    group_name="window",
    specs=[
        dg.AssetSpec("rollouts", deps=["beacon", "checkpoint"], skippable=True, kinds={"torch"}),
        dg.AssetSpec("proofs", deps=["rollouts"], skippable=True, kinds={"torch"}),
    ],
)
def window_stream(
    context: dg.AssetExecutionContext,
    config: StreamConfig,
    settings: dg.ResourceParam[Settings],
    chain: dg.ResourceParam[Chain],
    checkpoints: dg.ResourceParam[CheckpointCache],
    inference: dg.ResourceParam[Inference],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
    progress: dg.ResourceParam[ProgressDisplay],
    mining_gpus: dg.ResourceParam[GpuTurns],
) -> Iterator[dg.MaterializeResult]:
    """Sixteen rewarded rollouts a group, and the proof of every rollout.

    Selected together they stream through the window loop and resume from its spool. `proofs`
    alone proves the stored rollouts again; `rollouts` alone generates without proving.
    """
    window, hotkey = int(context.partition_key), wallet.hotkey
    selected = {key.path[-1] for key in context.selected_asset_keys}
    with (
        faults_kept(
            lake, window, hotkey, "window_stream", context.run.run_id, chain=chain
        ) as faults,
        window_lock(settings.home / "locks", window, hotkey, context.run.run_id),
        mining_gpus.taken(),
    ):
        # A run that was retried begins here: its beacon was drawn before it died.
        if OPEN_WINDOW_TAG.items() <= context.run.tags.items():
            require_open(chain, window)
        beacon = stored_row(lake, "beacons", window, hotkey)
        clock = WindowClock(chain, window, beacon["block_hash"])
        checkpoint = stored_checkpoint(lake, checkpoints, window, hotkey)
        prover = inference.prover(checkpoint) if "proofs" in selected else None
        if "rollouts" in selected:
            spool = Spool(
                settings.home / "spool", window, hotkey, _identity(beacon, checkpoint, prover)
            )
            lexicon = inference.lexicon(checkpoint)
            plan = WindowPlan(
                window_start=window,
                block_hash=beacon["block_hash"],
                randomness=beacon["randomness"],
                hotkey=hotkey,
                policy=checkpoint.metadata.policy,
                vocab_size=lexicon.vocab_size,
                eos_token_id=lexicon.eos_token_id,
                max_groups=config.max_groups or settings.max_groups,
                groups_in_flight=settings.groups_in_flight,
                timed=clock.block() < window + WINDOW_BLOCKS,
            )
            sampler = inference.generator(checkpoint)
            with progress.watch(window, plan.max_groups, context.log.info) as show:
                loop = WindowLoop(
                    plan,
                    generator=sampler,
                    environment=inference.environment(checkpoint),
                    prover=prover,
                    spool=spool,
                    budget=_budget(lake, hotkey, settings.safety_blocks),
                    clock=clock,
                    on_progress=show,
                )
                try:
                    report = loop.run()
                finally:
                    faults += loop.report.dropped
            run = stream_rows.window_run(window, hotkey, loop, sampler)
            lake.write("window_runs", window, hotkey, run, run_id=context.run.run_id, replace=True)
            groups = stream_rows.finished_groups(spool, report, window)
            rollouts = stream_rows.rollouts(groups, window, hotkey)
            lake.write(
                "rollouts", window, hotkey, rollouts, run_id=context.run.run_id, replace=True
            )
            yield dg.MaterializeResult(
                "rollouts", metadata=stream_rows.rollouts_metadata(rollouts, report, sampler)
            )
        if prover is not None:
            if "rollouts" not in selected:
                stored = stored_table(lake, "rollouts", window, hotkey)
                groups = stream_rows.proved(
                    stored, prove_again(stored, prover, beacon["randomness"])
                )
            proofs = stream_rows.proofs(groups, window, hotkey, inference.placement(checkpoint))
            lake.write("proofs", window, hotkey, proofs, run_id=context.run.run_id, replace=True)
            yield dg.MaterializeResult("proofs", metadata=stream_rows.proofs_metadata(proofs))


def _identity(beacon: dict[str, Any], checkpoint: VerifiedCheckpoint, prover: Prover | None) -> str:
    """Everything the groups of this run depend on."""
    metadata = checkpoint.metadata
    return identity_of(
        {
            "block_hash": beacon["block_hash"],
            "randomness": beacon["randomness"],
            "checkpoint_window": metadata.window,
            "weights_hash": checkpoint.weights_hash,
            "env_id": metadata.env_id,
            "env_params": dict(metadata.env_params),
            "thinking_mode": metadata.thinking_mode,
            "policy": asdict(metadata.policy),
            "proved": prover is not None,
        }
    )


def _budget(lake: Lake, hotkey: str, safety_blocks: int) -> TimeBudget:
    """The moving averages where the last run left them."""
    group = lake.query(
        "SELECT group_seconds FROM window_runs WHERE hotkey = ? AND group_seconds IS NOT NULL "
        "ORDER BY ended_at DESC LIMIT 1",
        [hotkey],
    )
    upload = lake.query(
        "SELECT seconds FROM uploads WHERE hotkey = ? ORDER BY uploaded_at DESC LIMIT 1", [hotkey]
    )
    return TimeBudget(
        group_seconds=group.column(0)[0].as_py() if group.num_rows else None,
        upload_seconds=upload.column(0)[0].as_py() if upload.num_rows else None,
        safety_blocks=safety_blocks,
    )
