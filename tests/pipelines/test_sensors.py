"""The sensors: every window opens once, every checkpoint is announced once."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.support.lake_rows import rows_of
from windrow.assets.window.faults import record_faults
from windrow.engine.mining.spool import DroppedGroup
from windrow.networks.grail.checkpoint import ready_key
from windrow.pipelines.build import build
from windrow.pipelines.sensors import MISSED_ROWS, new_checkpoint, open_window
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.configuration.settings import Settings
from windrow.resources.development_chain import DevelopmentChain
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.lake import Lake

WINDOW = 5_000_040


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    """What open_window asks for, over a chain that stands in WINDOW."""
    return {
        "chain": chain_at(tmp_path, WINDOW + 7),
        "lake": Lake(tmp_path / "lake"),
        "wallet": DevelopmentWallet(Secret("//Sensor")),
    }


def chain_at(folder: Path, block: int) -> DevelopmentChain:
    """A chain of its own whose newest block is `block`."""
    return DevelopmentChain(
        folder / f"chain-{block}.sqlite",
        seed="sensors",
        genesis=0.0,
        block_seconds=1.0,
        stepped=True,
        clock=lambda: float(block),
    )


def tick(parts: dict[str, Any], cursor: str | None = None) -> Any:
    return open_window(dg.build_sensor_context(cursor=cursor), **parts)


def missed(lake: Lake) -> list[int]:
    rows = lake.query("SELECT window_start FROM faults WHERE reason = 'missed' ORDER BY 1")
    windows: list[int] = rows["window_start"].to_pylist()
    return windows


def test_a_window_opens_once(parts: dict[str, Any]) -> None:
    first = tick(parts)
    (request,) = first.run_requests
    assert (request.run_key, request.partition_key) == (f"mine:{WINDOW}", str(WINDOW))
    assert isinstance(tick(parts, first.cursor), dg.SkipReason)
    parts["chain"].advance_to(WINDOW + 29)
    assert isinstance(tick(parts, first.cursor), dg.SkipReason)
    parts["chain"].advance_to(WINDOW + 30)
    (request,) = tick(parts, first.cursor).run_requests
    assert request.partition_key == str(WINDOW + 30)
    assert missed(parts["lake"]) == []


def test_windows_that_passed_meanwhile_are_written_down(parts: dict[str, Any]) -> None:
    result = tick(parts, str(WINDOW - 120))
    assert [request.partition_key for request in result.run_requests] == [str(WINDOW)]
    assert missed(parts["lake"]) == [WINDOW - 90, WINDOW - 60, WINDOW - 30]


def test_after_a_long_pause_the_newest_missed_windows_are_written_down(
    parts: dict[str, Any],
) -> None:
    tick(parts, str(WINDOW - 30 * (MISSED_ROWS + 100)))
    rows = parts["lake"].query("SELECT window_start, detail FROM faults ORDER BY 1")
    assert rows.num_rows == MISSED_ROWS
    assert rows["window_start"].to_pylist()[-1] == WINDOW - 30
    assert str(MISSED_ROWS + 99) in rows["detail"][0].as_py()


def test_a_chain_that_went_back_opens_no_window_twice(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    cursor = tick(parts).cursor
    parts["chain"] = chain_at(tmp_path, WINDOW - 61)
    skipped = tick(parts, cursor)
    assert isinstance(skipped, dg.SkipReason)
    assert str(WINDOW + 30) in str(skipped.skip_message)
    parts["chain"].advance_to(WINDOW + 30)
    (request,) = tick(parts, cursor).run_requests
    assert request.partition_key == str(WINDOW + 30)


def test_a_window_whose_first_block_is_replaced_is_worked_on_once_more(
    parts: dict[str, Any],
) -> None:
    cursor, lake, hotkey = tick(parts).cursor, parts["lake"], parts["wallet"].hotkey

    def gives_up(drawn_from: str) -> None:
        row = rows_of("beacons", WINDOW, 1, hotkey=hotkey, block_hash=drawn_from)
        lake.write("beacons", WINDOW, hotkey, row, replace=True)
        fault = DroppedGroup(-1, "window_stream", "ReorganisedWindow", "another block")
        record_faults(lake, WINDOW, hotkey, "window_stream", [fault])

    current = parts["chain"].block_hash(WINDOW)
    gives_up("0x" + "00" * 32)
    for _ in range(2):
        result = tick(parts, cursor)
        (request,) = result.run_requests
        # Dagster takes a run key once.
        assert request.run_key == f"mine:{WINDOW}:{current}"
        assert (request.partition_key, result.cursor) == (str(WINDOW), cursor)
    # The second run has drawn from the block that is there now.
    gives_up(current)
    assert isinstance(tick(parts, cursor), dg.SkipReason)
    gives_up("0x" + "00" * 32)
    parts["chain"].advance_to(WINDOW + 30)
    (request,) = tick(parts, cursor).run_requests
    assert request.run_key == f"mine:{WINDOW + 30}"


def test_the_daemon_registers_the_window_and_runs_it_before_backfills(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build(settings)
    with dg.build_sensor_context(
        instance=instance, definitions=definitions, resources=definitions.resources
    ) as context:
        data = open_window.evaluate_tick(context)
    (request,) = data.run_requests or []
    (added,) = data.dynamic_partitions_requests or []
    assert added.partition_keys == [request.partition_key]
    assert int(request.tags["dagster/priority"]) > 0


def test_a_ready_checkpoint_is_announced_once(tmp_path: Path) -> None:
    bucket = open_bucket(str(tmp_path / "bucket"))
    checkpoints = CheckpointCache(bucket, tmp_path / "cache", "trainer")

    def announced(cursor: str | None) -> tuple[list[int], str | None]:
        result = new_checkpoint(dg.build_sensor_context(cursor=cursor), checkpoints=checkpoints)
        if isinstance(result, dg.SkipReason):
            return [], cursor
        events = result.asset_events
        return [event.metadata["checkpoint_window"].value for event in events], result.cursor

    assert announced(None) == ([], None)
    bucket.put(ready_key(90, 120), b"")
    bucket.put(ready_key(60, 90), b"")
    found, cursor = announced(None)
    assert sorted(found) == [60, 90]
    assert announced(cursor) == ([], cursor)
    # One that sorts before those announced, and one that the trainer has removed.
    bucket.put(ready_key(30, 150), b"")
    bucket.delete(ready_key(60, 90))
    found, cursor = announced(cursor)
    assert found == [30]
    assert announced(cursor)[0] == []
