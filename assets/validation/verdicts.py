"""What validators make of every file of a closed window, and what is true of it."""

import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg

from windrow import WindrowError
from windrow.assets.validation import verdict_rows as rows
from windrow.assets.validation.memory import remember
from windrow.assets.validation.reference import opened_file, validation_context
from windrow.assets.window.faults import WHOLE_WINDOW, faults_kept
from windrow.assets.window.partitions import windows
from windrow.engine.mining.spool import DroppedGroup
from windrow.engine.validation.validator import FileVerdict, validate_file
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.validation.uploads import UploadState
from windrow.resources.beacon import BeaconSource
from windrow.resources.calibrations import Calibrations
from windrow.resources.chain import Chain
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.configuration.settings import Settings
from windrow.resources.inference import Inference
from windrow.resources.miners import FoundUpload, Miners
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake


class WindowStillOpen(WindrowError):
    """A window is validated once its last block is there."""


class VerdictsConfig(dg.Config):
    """every_miner: look at all miners, not only those the network would draw. every_rollout: check
    all rollouts of their files, not only the sampled groups."""

    every_miner: bool = False
    every_rollout: bool = False


@dg.asset(
    partitions_def=windows,
    group_name="validation",
    deps=["upload"],
    kinds={"torch"},
    check_specs=[
        dg.AssetCheckSpec(
            "coverage",
            asset="verdicts",
            description="every check of every sampled rollout is there",
        ),
        dg.AssetCheckSpec(
            "replay", asset="verdicts", description="a verdict, run again, has the same bits"
        ),
        dg.AssetCheckSpec(
            "no_nan", asset="verdicts", description="no measured number of a check passed is NaN"
        ),
    ],
)
def verdicts(
    context: dg.AssetExecutionContext,
    config: VerdictsConfig,
    settings: dg.ResourceParam[Settings],
    chain: dg.ResourceParam[Chain],
    beacon_source: dg.ResourceParam[BeaconSource],
    miners: dg.ResourceParam[Miners],
    checkpoints: dg.ResourceParam[CheckpointCache],
    inference: dg.ResourceParam[Inference],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
) -> dg.MaterializeResult:
    """Every check of every file the network would look at (grail-validation §3-§12).

    Files are checked side by side, `WINDROW_VALIDATION_WORKERS` at a time, so that one miner's
    does not hold up another's. What goes wrong with one is that miner's row, and a fault.
    """
    window, validator = int(context.partition_key), wallet.hotkey
    with faults_kept(
        lake, window, validator, "verdicts", context.run.run_id, chain=chain
    ) as faults:
        if chain.block() < window + WINDOW_BLOCKS:
            raise WindowStillOpen(
                f"window {window} is open until block {window + WINDOW_BLOCKS}; it is at "
                f"{chain.block()} now. Validate it once it has closed"
            )
        checkpoint = checkpoints.fetch(checkpoints.select(window))
        lexicon = inference.lexicon(checkpoint)
        environment, verifier = inference.environment(checkpoint), inference.verifier(checkpoint)
        limits = Calibrations.of(settings).limits(checkpoint, inference)
        opened, closed = beacon_source.beacon(window), beacon_source.beacon(window + WINDOW_BLOCKS)
        deadline = chain.deadline(window)
        found = {hotkey: miners.find(hotkey, window, deadline) for hotkey in miners.hotkeys()}
        active = [h for h, f in found.items() if f.upload.state is UploadState.USABLE]
        plan = remember(lake, validator, window).plan(active, opened.block_hash)
        chosen = plan.active if config.every_miner else plan.selected

        def look(hotkey: str) -> tuple[FileVerdict, dict[str, Any]]:
            began = time.perf_counter()
            data = miners.fetch(hotkey, found[hotkey])
            file, claimed = opened_file(data)
            inputs = validation_context(
                hotkey,
                opened,
                checkpoint,
                lexicon,
                miner_randomness=beacon_source.miners(opened, claimed),
                randomness=closed.randomness,
                drand_round=closed.drand_round,
                every_rollout=config.every_rollout,
                calibration=limits.calibration,
                evaluation_seconds=settings.evaluation_seconds,
            )
            verdict = validate_file(file, inputs, environment=environment, measure=verifier.measure)
            return verdict, rows.judged(verdict, data, time.perf_counter() - began)

        validations, judged, lost = [], [], {}
        with ThreadPoolExecutor(settings.validation_workers) as pool:
            looks = {hotkey: pool.submit(look, hotkey) for hotkey in chosen}
            for hotkey, upload in found.items():
                if upload.upload.state is UploadState.MISSING:
                    continue
                row = rows.base(window, hotkey, validator, upload, deadline)
                row |= {
                    "randomness_source": closed.source,
                    "randomness_fallback": closed.fallback,
                }
                if hotkey not in looks:
                    row["state"] = _passed_over(upload, hotkey, plan.eligible)
                else:
                    try:
                        verdict, seen = looks[hotkey].result()
                        judged.append((hotkey, verdict))
                        row |= seen
                    except Exception as error:  # noqa: BLE001 - ends this miner's part alone
                        said = f"{type(error).__name__}: {error}"
                        row |= {"state": "unreadable", "network_reason": said}
                        faults.append(DroppedGroup(WHOLE_WINDOW, "verdicts", hotkey, said))
                        if not isinstance(error, WindrowError):
                            context.log.error("".join(traceback.format_exception(error)))
                            lost[hotkey] = said
                validations.append(row)
        faults += [
            DroppedGroup(WHOLE_WINDOW, "verdicts", concern.name, concern.detail)
            for concern in beacon_source.concerns()
        ]
        tables = rows.tables(window, judged, validations)
        for dataset, table in tables.items():
            lake.write(dataset, window, validator, table, run_id=context.run.run_id, replace=True)
        replayed = rows.replayed(
            judged,
            lambda hotkey: miners.fetch(hotkey, found[hotkey]),
            environment,
            verifier,
            checkpoint.weights_hash,
        )
    return dg.MaterializeResult(
        metadata=rows.metadata(validations, tables["verdicts"], len(found), limits),
        check_results=[rows.coverage(judged, lost), replayed, rows.no_nan(tables["verdicts"])],
    )


def _passed_over(found: FoundUpload, hotkey: str, eligible: tuple[str, ...]) -> str:
    """Why a miner with an upload is not looked at."""
    if found.upload.state is not UploadState.USABLE:
        return str(found.upload.state)
    return "not_selected" if hotkey in eligible else "banned"
