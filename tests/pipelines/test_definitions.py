"""What Dagster loads: quickly, whole, and with the jobs people start."""

import os
import subprocess
import sys

import dagster as dg
import pytest

from windrow.assets.window.partitions import windows
from windrow.pipelines.build import build
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse.schema import DATASETS

SLOW = ("torch", "transformers", "datasets", "matplotlib", "sympy", "wandb", "pandas")


def test_loading_the_definitions_imports_no_model_library(settings: Settings) -> None:
    script = (
        "import sys, windrow.pipelines.definitions\n"
        f"print([name for name in {SLOW} if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"WINDROW_HOME": str(settings.home), "WINDROW_CHAIN_CLOCK": "stepped"},
        capture_output=True,
        text=True,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("job", "assets"),
    [
        (
            "mine_window",
            {"beacon", "checkpoint", "rollouts", "proofs", "submission", "upload"},
        ),
        ("prove_window", {"proofs", "submission"}),
        ("compact_lake", {"compacted_lake"}),
    ],
)
def test_a_job_makes_its_assets(settings: Settings, job: str, assets: set[str]) -> None:
    definitions = build(settings)
    dg.Definitions.validate_loadable(definitions)
    resolved = definitions.resolve_job_def(job)
    layer = resolved.asset_layer
    assert {key.to_user_string() for key in layer.selected_asset_keys} == assets
    assert resolved.tags["lane"] == ("window" if "window" in job else "upkeep")


def test_everything_that_starts_runs_is_on_by_default(settings: Settings) -> None:
    repository = build(settings).get_repository_def()
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    schedules = {schedule.name: schedule.default_status for schedule in repository.schedule_defs}
    assert sensors.keys() >= {"open_window", "new_checkpoint"}
    assert set(sensors.values()) == {dg.DefaultSensorStatus.RUNNING}
    assert schedules.keys() >= {"hourly_retention", "daily_compaction"}
    assert set(schedules.values()) == {dg.DefaultScheduleStatus.RUNNING}


def test_the_instance_queues_runs_and_notices_a_dead_one(
    instance_on_disk: dg.DagsterInstance,
) -> None:
    instance = instance_on_disk
    queue = instance.get_concurrency_config()
    assert queue.run_queue_config is not None
    assert instance.run_monitoring_enabled
    assert instance.run_retries_enabled


def test_no_asset_waits_for_a_pool_that_a_killed_run_may_hold(settings: Settings) -> None:
    jobs = build(settings).get_repository_def().get_all_jobs()
    assert not [node.name for job in jobs for node in job.graph.nodes if node.definition.pools]


@pytest.mark.parametrize("key", ["5000041", "-30", "007", "5000040 ", "", "next"])
def test_a_key_that_is_no_window_is_not_registered(instance: dg.DagsterInstance, key: str) -> None:
    assert not windows.has_partition_key(key, dynamic_partitions_store=instance)
    assert instance.get_dynamic_partitions("windows") == []


def test_a_window_is_registered_when_it_is_named(instance: dg.DagsterInstance) -> None:
    for key in ("5000070", "5000070", "5000040"):
        assert windows.has_partition_key(key, dynamic_partitions_store=instance)
    assert instance.get_dynamic_partitions("windows") == ["5000070", "5000040"]


def test_a_range_of_windows_is_a_range_of_blocks(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("windows", ["120", "90", "typed by hand", "1020", "60"])
    keys = windows.get_partition_keys(dynamic_partitions_store=instance)
    assert keys == ["60", "90", "120", "1020"]


def test_a_dataset_is_made_by_an_asset_that_exists(settings: Settings) -> None:
    keys = {key.to_user_string() for key in build(settings).resolve_all_asset_keys()}
    makers = {kind.made_by for kind in DATASETS.values() if kind.made_by is not None}
    assert len(makers) > 5
    assert makers <= keys
