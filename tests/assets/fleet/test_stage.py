"""What a step makes of a node that fails to answer, and what the fleet's assets have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import FleetHome
from windrow.assets.fleet.stage import Stage
from windrow.engine.fleet.stages import GPU_BUSY, STAGES
from windrow.resources.fleet.nodes import NodeTimedOut, TaskFailed


@pytest.fixture
def step(tmp_path: Path) -> Iterator[Stage]:
    home = FleetHome.make(tmp_path)
    home.declare({"n": 1})
    yield Stage("gemm_proof", home.fleet.node("n"), home.fleet, home.lake, "r", 30, 0.0)
    home.fleet.close()


def failed(reason: str) -> TaskFailed:
    return TaskFailed("n", "task", reason, "why")


def test_a_node_that_cannot_is_refused(step: Stage) -> None:
    with step.answering("gonka", network_verdict=False):
        raise failed("NotEnoughMemory")
    (check,) = step.checks
    assert (check.network, check.network_verdict, check.windrow_verdict) == ("gonka", False, False)
    assert "NotEnoughMemory: why" in check.reason


def test_gpus_at_other_work_are_no_verdict(step: Stage) -> None:
    with step.answering("gonka", network_verdict=False):
        raise failed(GPU_BUSY)
    (check,) = step.checks
    assert (check.network_verdict, check.windrow_verdict) == (None, None)


@pytest.mark.parametrize("error", [failed("GpuLost"), NodeTimedOut("late")])
def test_a_lost_node_ends_the_step(step: Stage, error: Exception) -> None:
    with pytest.raises(type(error)), step.answering("gonka", network_verdict=False):
        raise error
    assert step.checks == []


def test_every_step_is_an_asset_of_the_fleet_by_node(tmp_path: Path) -> None:
    home = FleetHome.make(tmp_path)
    graph = home.definitions.resolve_asset_graph()
    for stage in STAGES:
        (node,) = [node for node in graph.asset_nodes if node.key.path == [stage]]
        assert node.group_name == "fleet"
        assert node.partitions_def is not None
        assert node.partitions_def.name == "nodes"  # type: ignore[attr-defined]
    home.fleet.close()
