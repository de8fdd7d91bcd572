"""The window file: packed, signed, and held against every rule a validator would ban for."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from windrow import WindrowError
from windrow.assets.window import submission_rows as rows
from windrow.assets.window.faults import faults_kept
from windrow.assets.window.full_verifier import FULL_VERIFIER, full_verifier
from windrow.assets.window.partitions import windows
from windrow.assets.window.self_checks import CHECKS, Reference, check_results
from windrow.assets.window.stored import (
    stored_checkpoint,
    stored_row,
    stored_table,
    window_file_path,
)
from windrow.engine.mining.packaging import Origin, package
from windrow.engine.mining.spool import DroppedGroup
from windrow.networks.grail.submission_checks import check_file_size
from windrow.networks.grail.window_file import read_window_file, write_window_file
from windrow.networks.grail.window_guards import WindowFileError
from windrow.resources.beacon import Beacon
from windrow.resources.calibrations import Calibrations
from windrow.resources.chain import Chain
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.configuration.settings import Settings
from windrow.resources.files import published
from windrow.resources.inference import Inference
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake


class NothingToSubmit(WindrowError):
    """Every group of a window breaks a rule."""


def submission_asset(*, verified: bool) -> dg.AssetsDefinition:
    """The asset `submission`. verified: with the check `full_verifier`, a second forward pass."""
    checks = [
        dg.AssetCheckSpec(name, asset="submission", blocking=True, description=description)
        for name, description in CHECKS.items()
    ]
    if verified:
        description = "every check that a validator makes, model included, on every rollout"
        checks.append(dg.AssetCheckSpec(FULL_VERIFIER, asset="submission", description=description))
    define = dg.asset(
        partitions_def=windows,
        group_name="window",
        deps=["rollouts", "proofs"],
        kinds={"parquet"},
        check_specs=checks,
    )
    return define(submission)


def submission(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    chain: dg.ResourceParam[Chain],
    checkpoints: dg.ResourceParam[CheckpointCache],
    inference: dg.ResourceParam[Inference],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
) -> Iterator[dg.MaterializeResult]:
    """The file that would be uploaded, without the groups that a validator would refuse.

    A group that breaks a rule is left out whole, with the reason kept as a row. What is left is
    written, read back as a stranger would read it, and checked again: those results are the asset
    checks, and one that fails keeps the file from being uploaded. A sound file of the same rollouts
    stays as it is, so that a repeated run has nothing new to upload.
    """
    window, hotkey = int(context.partition_key), wallet.hotkey
    with faults_kept(lake, window, hotkey, "submission", context.run.run_id) as faults:
        beacon = stored_row(lake, "beacons", window, hotkey)
        checkpoint = stored_checkpoint(lake, checkpoints, window, hotkey)
        origin = Origin(
            window_start=window,
            block_hash=beacon["block_hash"],
            randomness=beacon["randomness"],
            use_drand=beacon["use_drand"],
            checkpoint_window=checkpoint.metadata.window,
            model_name=checkpoint.metadata.model_name,
            hotkey=hotkey,
        )
        flat = package(
            stored_table(lake, "rollouts", window, hotkey),
            stored_table(lake, "proofs", window, hotkey),
            origin,
            wallet.sign,
        )
        reference = Reference.of(flat, origin, checkpoint, inference)
        refused = _refused_groups(reference.violations(flat))
        faults += refused
        if refused:
            gone = pa.array([drop.group for drop in refused], pa.int64())
            flat = flat.filter(pc.invert(pc.is_in(flat["rollout_group"], value_set=gone)))
        if not flat.num_rows:
            raise NothingToSubmit(
                f"window {window}: all {len(refused)} groups break a rule, the first one "
                f"(group {refused[0].group}) {refused[0].reason}: {refused[0].detail}"
            )
        path = window_file_path(lake, window, hotkey)
        if not _holds(path, flat, reference):
            with published(path, replace=True) as temporary:
                write_window_file(
                    temporary,
                    flat.to_batches(),
                    wallet=hotkey,
                    window_start=window,
                    timestamp=chain.now(),
                )
        written = read_window_file(path)
        violations = pa.concat_tables(
            [
                reference.violations(written.rows, written.irregular),
                check_file_size(path.stat().st_size),
            ]
        )
        summary = rows.summary(window, hotkey, written.rows, path, len(refused))
        lake.write("submissions", window, hotkey, summary, run_id=context.run.run_id, replace=True)
        current = checkpoints.select(window)
        results = check_results(violations, checkpoint.metadata.window, current)
        if settings.verify_submission:
            opened = Beacon(**{name: beacon[name] for name in Beacon.__dataclass_fields__})
            results.append(
                full_verifier(
                    written,
                    hotkey,
                    opened,
                    checkpoint,
                    inference,
                    Calibrations.of(settings),
                    settings.evaluation_seconds,
                )
            )
    yield dg.MaterializeResult(metadata=rows.summary_metadata(summary, flat), check_results=results)


def _holds(path: Path, flat: pa.Table, reference: Reference) -> bool:
    """Whether a sound file of these rollouts is there; signing them again would give another."""
    if not path.exists():
        return False
    try:
        found = read_window_file(path)
    except WindowFileError:
        return False
    signatures = ["commit_signature", "signature"]
    if not found.rollouts.drop_columns(signatures).equals(flat.drop_columns(signatures)):
        return False
    return not reference.violations(found.rows, found.irregular).num_rows


def _refused_groups(violations: pa.Table) -> list[DroppedGroup]:
    """One entry a group that breaks a rule, with the first rule it breaks."""
    refused: dict[int, DroppedGroup] = {}
    for violation in violations.to_pylist():
        group = violation["rollout_group"]
        if group is not None and group not in refused:
            refused[group] = DroppedGroup(
                group, "submission", violation["check"], violation["reason"]
            )
    return list(refused.values())
