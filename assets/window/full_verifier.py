"""The whole verifier over a miner's own file: an asset check that costs a second forward pass."""

import hashlib

import dagster as dg
import pyarrow.compute as pc

from windrow.assets.validation.reference import seconds_for_all, validation_context
from windrow.engine.validation.validator import validate_file
from windrow.networks.grail.window_file import WindowFile
from windrow.resources.beacon import Beacon
from windrow.resources.calibrations import Calibrations
from windrow.resources.checkpoints.cache import VerifiedCheckpoint
from windrow.resources.inference import Inference

FULL_VERIFIER = "full_verifier"
SHOWN = 20


def stand_in_randomness(miner_randomness: str) -> str:
    """R_v for a file whose window is still open: 64 hex digits, the same each time it is asked."""
    return hashlib.sha256(f"windrow full verifier:{miner_randomness}".encode()).hexdigest()


def full_verifier(
    file: WindowFile,
    hotkey: str,
    opened: Beacon,
    checkpoint: VerifiedCheckpoint,
    inference: Inference,
    calibrations: Calibrations,
    evaluation_seconds: float,
) -> dg.AssetCheckResult:
    """Every check on every rollout of a file, as a validator with this checkpoint makes it.

    evaluation_seconds: for as many rollouts as the network samples. The check only warns: the true
    R_v opens other positions, and a failure near a tolerance need not recur.
    """
    randomness = stand_in_randomness(opened.randomness)
    limits = calibrations.limits(checkpoint, inference)
    context = validation_context(
        hotkey,
        opened,
        checkpoint,
        inference.lexicon(checkpoint),
        miner_randomness=opened.randomness,
        randomness=randomness,
        drand_round=None,
        every_rollout=True,
        calibration=limits.calibration,
        evaluation_seconds=seconds_for_all(file.rows.num_rows, evaluation_seconds),
    )
    verdict = validate_file(
        file,
        context,
        environment=inference.environment(checkpoint),
        measure=inference.verifier(checkpoint).measure,
    )
    refused = verdict.verdicts.filter(pc.invert(verdict.verdicts["windrow_verdict"]))
    passed = verdict.windrow_accepts and not verdict.faults and not verdict.skipped
    return dg.AssetCheckResult(
        check_name=FULL_VERIFIER,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "network_accepts": verdict.network_accepts,
            "windrow_accepts": verdict.windrow_accepts,
            "results": verdict.verdicts.num_rows,
            "refused": refused.num_rows,
            "first": dg.MetadataValue.json(refused.slice(0, SHOWN).to_pylist()),
            "not_checked": dg.MetadataValue.json([*verdict.skipped, *verdict.faults]),
            "randomness": randomness,
            "limits": limits.calibration.source,
            "calibration_seconds": round(limits.seconds, 3),
        },
    )
