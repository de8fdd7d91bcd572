"""A window's metrics in W&B, and a tracker that cannot take them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from tests.support.embedded import WINDOW, embedded, mine
from tests.support.wandb_runs import offline_runs
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.resources.tracking.metrics import mining_metrics, validation_metrics

BLOCK_TIME = timedelta(seconds=12)
JUDGED = WINDOW + 3 * WINDOW_BLOCKS
"""One the network's distribution check lets pass: it refuses many files of an untrained model."""


def test_a_mined_and_validated_window_is_logged_under_the_networks_names(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    home = tmp_path
    definitions = embedded(
        home,
        WINDROW_TRACKER="wandb",
        WINDROW_WANDB_MODE="offline",
        WINDROW_CHAIN_CLOCK="stepped",
        WINDROW_CHAIN_GENESIS=(datetime.now(UTC) - WINDOW * BLOCK_TIME).isoformat(),
    )
    chain = (definitions.resources or {})["chain"]
    window = chain.advance_to(JUDGED)
    assert mine(definitions, instance, window, groups=1).success
    chain.advance_to(window + WINDOW_BLOCKS)
    validated = definitions.resolve_job_def("validate_window").execute_in_process(
        partition_key=str(window), instance=instance
    )
    assert validated.success
    runs = {run.name.partition("_")[0]: run for run in offline_runs(home / "wandb")}
    resources = definitions.resources or {}
    lake, hotkey = resources["lake"], resources["wallet"].hotkey

    (mined,) = runs["mining"].history
    assert mined["block_number"] == window
    assert (mined["windrow/groups"], mined["windrow/rollouts"]) == (1, 16)
    assert mined["profiling/upload_duration"] >= 0
    stored = mining_metrics(lake, window, hotkey).values
    assert {name: mined[name] for name in stored} == pytest.approx(dict(stored))

    (judged,) = runs["validation"].history
    stored = validation_metrics(lake, window, hotkey).values
    assert {name: judged[name] for name in stored} == pytest.approx(dict(stored))
    assert judged["miner_sampling/miners_active"] == 1
    assert judged["miner_sampling/miners_total"] == 2
    assert judged["validation/active_miners/window_files_found"] == 1
    assert judged["validation/active_miners/window_valid_rollouts"] == 16
    assert judged["validation/active_miners/window_invalid_proofs"] == 0
    assert judged["1/had_failure"] == 0


def test_a_tracker_that_fails_costs_a_row_and_no_window(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    (tmp_path / "wandb").write_text("in the way")
    definitions = embedded(tmp_path, WINDROW_TRACKER="wandb", WINDROW_WANDB_MODE="offline")
    assert mine(definitions, instance, groups=1).success
    lake = (definitions.resources or {})["lake"]
    assert lake.read("uploads", WINDOW).num_rows == 1
    (fault,) = lake.read("faults", WINDOW).to_pylist()
    assert (fault["stage"], fault["reason"]) == ("tracking", "FileExistsError")
