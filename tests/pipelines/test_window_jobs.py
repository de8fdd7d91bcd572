"""A window's assets together, and each of them on its own."""

from collections.abc import Iterator, Sequence

import dagster as dg
import numpy as np
import pytest

from tests.support.embedded import WINDOW, mine
from windrow.pipelines.build import build
from windrow.resources.configuration.settings import Settings
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.lake import Lake

GROUPS = {"ops": {"window_stream": {"config": {"max_groups": 2}}}}


@pytest.fixture(scope="module")
def definitions(settings: Settings) -> dg.Definitions:
    return build(settings)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def mined(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return mine(definitions, instance)


@pytest.fixture(scope="module")
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def made(result: dg.ExecuteInProcessResult) -> list[str]:
    events = result.get_asset_materialization_events()
    return sorted(str(event.asset_key and event.asset_key.to_user_string()) for event in events)


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    window: int = WINDOW,
) -> dg.ExecuteInProcessResult:
    """Make some assets of one window, as a person does who selects them in the UI."""
    keys = [dg.AssetKey(name) for name in assets]
    job = definitions.resolve_implicit_global_asset_job_def()
    config = GROUPS if {"rollouts", "proofs"} & set(assets) else {}
    return job.execute_in_process(
        asset_selection=keys,
        partition_key=str(window),
        instance=instance,
        run_config=config,
        raise_on_error=False,
    )


def test_a_window_is_mined_from_beacon_to_upload(
    settings: Settings, mined: dg.ExecuteInProcessResult, lake: Lake
) -> None:
    assert mined.success
    assert made(mined) == ["beacon", "checkpoint", "proofs", "rollouts", "submission", "upload"]
    checks = {check.check_name: check.passed for check in mined.get_asset_check_evaluations()}
    # The window was over long before, which is the only thing wrong with it.
    assert [name for name, passed in checks.items() if not passed] == ["on_time"]
    hotkey = DevelopmentWallet(settings.wallet_uri).hotkey
    row = lake.read("submissions", WINDOW, hotkey).to_pylist()[0]
    assert (row["groups"], row["rollouts"]) == (2, 32)
    assert lake.read("uploads", WINDOW, hotkey)["sha256"][0].as_py() == row["sha256"]


def test_proofs_alone_prove_the_stored_rollouts_again(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    mined: dg.ExecuteInProcessResult,
    lake: Lake,
) -> None:
    before = lake.read("proofs", WINDOW)
    rollouts = lake.read("rollouts", WINDOW)
    result = materialize(definitions, instance, ["proofs"])
    assert made(result) == ["proofs"]
    after = lake.read("proofs", WINDOW)
    assert lake.read("rollouts", WINDOW).equals(rollouts)
    assert after["proof_seconds"] != before["proof_seconds"]
    assert after["sketches"] == before["sketches"]
    old, new = (
        table["token_logprobs"].combine_chunks().flatten().to_numpy() for table in (before, after)
    )
    np.testing.assert_allclose(new, old, atol=2e-5)


def test_prove_window_keeps_the_uploaded_file(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    mined: dg.ExecuteInProcessResult,
    lake: Lake,
) -> None:
    before = lake.read("submissions", WINDOW)
    job = definitions.resolve_job_def("prove_window")
    result = job.execute_in_process(partition_key=str(WINDOW), instance=instance)
    assert made(result) == ["proofs", "submission"]
    assert lake.read("submissions", WINDOW)["sha256"] == before["sha256"]


def test_a_window_can_be_made_an_asset_at_a_time(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    window = WINDOW + 30
    for assets in (["beacon"], ["checkpoint"], ["rollouts"]):
        assert made(materialize(definitions, instance, assets, window)) == assets
    assert not lake.exists("proofs", window)
    refused = materialize(definitions, instance, ["submission"], window)
    assert not refused.success
    (failure,) = [event for event in refused.all_events if event.is_step_failure]
    assert "no proofs" in str(failure.step_failure_data.error)
    for assets in (["proofs"], ["submission"], ["upload"]):
        assert made(materialize(definitions, instance, assets, window)) == assets


def test_selecting_an_asset_without_what_it_needs_says_what_to_select(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    result = materialize(definitions, instance, ["upload"], WINDOW + 60)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "--select '*upload'" in str(failure.step_failure_data.error)
    faults = lake.read("faults", WINDOW + 60).to_pylist()
    assert [(fault["stage"], fault["reason"]) for fault in faults] == [
        ("upload", "NotMaterialized")
    ]


def test_the_lake_is_compacted_by_an_asset(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    mined: dg.ExecuteInProcessResult,
    lake: Lake,
) -> None:
    rows = lake.read("rollouts", WINDOW)
    job = definitions.resolve_job_def("compact_lake")
    (event,) = job.execute_in_process(instance=instance).get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert int(str(metadata["merged_files"].value)) > int(str(metadata["written_files"].value)) > 0
    assert lake.read("rollouts", WINDOW).equals(rows)
