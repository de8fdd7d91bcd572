"""The assets, jobs, sensors and schedules, over the resources that settings ask for."""

import dagster as dg

from windrow.assets.fleet.attestation import attestation
from windrow.assets.fleet.facts import facts
from windrow.assets.fleet.fleet_page import fleet_page
from windrow.assets.fleet.gemm_proof import gemm_proof
from windrow.assets.fleet.hash_challenge import hash_challenge
from windrow.assets.fleet.inventory import inventory
from windrow.assets.fleet.llm_job import llm_job
from windrow.assets.fleet.preflight import preflight
from windrow.assets.fleet.proof_of_compute import proof_of_compute
from windrow.assets.lake import compacted_lake
from windrow.assets.validation.scores import scores
from windrow.assets.validation.verdicts import verdicts
from windrow.assets.validation.weights import weights
from windrow.assets.window.beacon import beacon
from windrow.assets.window.checkpoint import checkpoint
from windrow.assets.window.stream import window_stream
from windrow.assets.window.submission import submission_asset
from windrow.assets.window.upload import upload
from windrow.pipelines.fleet_sensor import hourly_fleet_page, stale_nodes
from windrow.pipelines.jobs import (
    compact_lake,
    compact_schedule,
    mine_window,
    prove_window,
    show_fleet,
    validate_window,
    verify_node,
)
from windrow.pipelines.live import window_resources
from windrow.pipelines.retention import retention, retention_schedule
from windrow.pipelines.runs.watch import failed_run, watch_runs
from windrow.pipelines.sensors import closed_window, new_checkpoint, open_window
from windrow.resources.configuration.settings import Settings

TRAINER_BUCKET = dg.AssetSpec(
    "trainer_bucket",
    group_name="window",
    kinds={"s3"},
    description="Checkpoints the trainer publishes; the sensor `new_checkpoint` watches them.",
)


def build(settings: Settings) -> dg.Definitions:
    """The definitions for these settings."""
    return dg.Definitions(
        assets=[
            TRAINER_BUCKET,
            beacon,
            checkpoint,
            window_stream,
            submission_asset(verified=settings.verify_submission),
            upload,
            verdicts,
            scores,
            weights,
            compacted_lake,
            inventory,
            facts,
            preflight,
            attestation,
            hash_challenge,
            gemm_proof,
            proof_of_compute,
            llm_job,
            fleet_page,
        ],
        jobs=[
            mine_window,
            prove_window,
            validate_window,
            verify_node,
            show_fleet,
            compact_lake,
            retention,
        ],
        sensors=[
            open_window,
            closed_window,
            new_checkpoint,
            stale_nodes,
            watch_runs,
            failed_run,
        ],
        schedules=[compact_schedule, hourly_fleet_page, retention_schedule],
        resources=window_resources(settings),
        executor=dg.in_process_executor,
    )
