"""The assets, jobs, sensors and schedules, over the resources that settings ask for."""

import dagster as dg

from windrow.assets.lake import compacted_lake
from windrow.assets.validation.scores import scores
from windrow.assets.validation.verdicts import verdicts
from windrow.assets.validation.weights import weights
from windrow.assets.window.beacon import beacon
from windrow.assets.window.checkpoint import checkpoint
from windrow.assets.window.stream import window_stream
from windrow.assets.window.submission import submission_asset
from windrow.assets.window.upload import upload
from windrow.pipelines.jobs import (
    compact_lake,
    compact_schedule,
    mine_window,
    prove_window,
    validate_window,
)
from windrow.pipelines.live import window_resources
from windrow.pipelines.retention import retention, retention_schedule
from windrow.pipelines.sensors import closed_window, new_checkpoint, open_window
from windrow.resources.settings import Settings

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
        ],
        jobs=[mine_window, prove_window, validate_window, compact_lake, retention],
        sensors=[open_window, closed_window, new_checkpoint],
        schedules=[compact_schedule, retention_schedule],
        resources=window_resources(settings),
        executor=dg.in_process_executor,
    )
