"""An embedded Windrow of its own in a folder, with a tiny checkpoint instead of the demo's."""

from pathlib import Path

import dagster as dg

from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.pipelines.build import build
from windrow.pipelines.demo.network import trainer
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.publishing import publish_full
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage.object_store import open_bucket

WINDOW = 5_000_040
"""Long over on the development chain, so nothing depends on the time of day."""


def embedded_settings(home: Path, **variables: str) -> Settings:
    """Settings of a home folder whose bucket holds a tiny checkpoint."""
    settings = Settings.read({"WINDROW_HOME": str(home), **variables})
    bucket = open_bucket(settings.bucket)
    if not bucket.list():
        folder = make_tiny_checkpoint(home / "made", max_tokens=40)
        publish_full(bucket, verify_checkpoint(folder), ready_window=0, sign=trainer().sign)
    return settings


def mine(
    definitions: dg.Definitions, instance: dg.DagsterInstance, window: int = WINDOW, groups: int = 2
) -> dg.ExecuteInProcessResult:
    """Run mine_window in this process."""
    return definitions.resolve_job_def("mine_window").execute_in_process(
        partition_key=str(window),
        instance=instance,
        run_config={"ops": {"window_stream": {"config": {"max_groups": groups}}}},
        raise_on_error=False,
    )


def embedded(home: Path, **variables: str) -> dg.Definitions:
    """Definitions over `embedded_settings`."""
    return build(embedded_settings(home, **variables))
