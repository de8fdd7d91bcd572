"""The sensor of closed windows: all of them, in order, once, however long nothing ran."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.validation.subnet import Subnet
from windrow.networks.grail.windows import validator_target
from windrow.pipelines.sensors import CATCH_UP, closed_window
from windrow.resources.development_chain import DevelopmentChain

WINDOW = 5_000_040


def chain_at(folder: Path, block: int) -> DevelopmentChain:
    return DevelopmentChain(
        folder / "chain.sqlite",
        seed="sensor",
        genesis=0.0,
        block_seconds=1.0,
        stepped=True,
        clock=lambda: float(block),
    )


def tick(chain: DevelopmentChain, cursor: str | None) -> tuple[list[str], str | None]:
    """The windows one tick asks for, and the cursor it leaves."""
    result = closed_window(dg.build_sensor_context(cursor=cursor), chain=chain)
    if isinstance(result, dg.SkipReason):
        return [], cursor
    keys = [request.partition_key for request in result.run_requests]
    assert [request.run_key for request in result.run_requests] == [f"validate:{k}" for k in keys]
    (added,) = result.dynamic_partitions_requests
    assert list(added.partition_keys) == keys
    return keys, result.cursor


def test_a_window_is_validated_once_and_only_when_it_has_closed(tmp_path: Path) -> None:
    chain = chain_at(tmp_path, WINDOW + 29)
    keys, cursor = tick(chain, None)
    assert keys == [str(WINDOW - 30)]
    assert tick(chain, cursor) == ([], cursor)
    chain.advance_to(WINDOW + 30)
    keys, cursor = tick(chain, cursor)
    assert keys == [str(WINDOW)]
    chain.advance_to(WINDOW + 59)
    assert tick(chain, cursor) == ([], cursor)


@pytest.mark.parametrize("missed", [2, CATCH_UP, CATCH_UP + 1, 3 * 240])
def test_after_a_pause_every_window_is_validated_in_order(tmp_path: Path, missed: int) -> None:
    chain = chain_at(tmp_path, WINDOW + 30)
    cursor: str | None = str(WINDOW - 30 * missed)
    asked: list[str] = []
    while True:
        keys, cursor = tick(chain, cursor)
        if not keys:
            break
        assert len(keys) <= CATCH_UP
        asked += keys
    assert asked == [str(w) for w in range(WINDOW - 30 * missed + 30, WINDOW + 1, 30)]


def test_windows_that_close_while_it_catches_up_come_last(tmp_path: Path) -> None:
    chain = chain_at(tmp_path, WINDOW + 30)
    first, cursor = tick(chain, str(WINDOW - 30 * (CATCH_UP + 2)))
    chain.advance_to(WINDOW + 90)
    second, cursor = tick(chain, cursor)
    assert [int(key) for key in first + second] == list(
        range(WINDOW - 30 * (CATCH_UP + 1), WINDOW + 61, 30)
    )
    assert tick(chain, cursor) == ([], cursor)


def test_a_chain_that_went_back_has_nothing_validated_twice(tmp_path: Path) -> None:
    chain = chain_at(tmp_path, WINDOW)
    assert tick(chain, str(WINDOW + 300)) == ([], str(WINDOW + 300))


def test_the_daemon_registers_the_windows_it_asks_for(subnet: Subnet) -> None:
    target = validator_target(subnet.resource("chain").block())
    with dg.build_sensor_context(
        instance=subnet.instance,
        definitions=subnet.definitions,
        resources=subnet.definitions.resources,
        cursor=str(target - 90),
    ) as context:
        data = closed_window.evaluate_tick(context)
    keys = [str(target - 60), str(target - 30), str(target)]
    assert [request.partition_key for request in data.run_requests or []] == keys
    (added,) = data.dynamic_partitions_requests or []
    assert list(added.partition_keys) == keys
    assert data.cursor == str(target)


def test_an_open_window_is_refused_by_name_and_kept_as_a_fault(subnet: Subnet) -> None:
    still_open = validator_target(subnet.resource("chain").block()) + 30
    result = subnet.validate(window=still_open)
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert event.step_key == "verdicts"
    said: Any = event.step_failure_data.user_failure_data
    assert said.metadata["reason"].value == "WindowStillOpen"
    assert [(row["stage"], row["reason"]) for row in subnet.faults(still_open)] == [
        ("verdicts", "WindowStillOpen")
    ]
    assert not subnet.resource("lake").exists("verdicts", still_open)
