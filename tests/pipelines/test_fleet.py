"""The fleet in Dagster: partitions, one whole verification, the sensor."""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.support.fleet import WORKING, FleetHome, Machine, served, told
from windrow.assets.fleet.partitions import nodes
from windrow.engine.fleet.inventory import Fleet, InvalidFleet, WireGuard
from windrow.engine.fleet.stages import LOOK, STAGES, concerned
from windrow.pipelines.commands.node_verify import run_page
from windrow.pipelines.fleet_sensor import hourly_fleet_page, stale_nodes, whats_due
from windrow.resources.warehouse.schema import DATASETS

LOCAL = "nodes:\n  - {name: here, transport: local}\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetHome]:
    """A home whose node `n` was verified for two networks."""
    made = FleetHome.make(tmp_path_factory.mktemp("fleet"))
    with served(made.agent(Machine())) as port:
        made.declare({"n": port}, WORKING)
        assert made.verify()
        yield made
    made.fleet.close()


def rows(home: FleetHome, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.lake.query(sql).to_pylist()
    return found


def test_every_step_leaves_its_rows(home: FleetHome) -> None:
    states = rows(home, "SELECT stage, list_sort(list(state)) AS s FROM node_states GROUP BY stage")
    ended = {row["stage"]: row["s"] for row in states}
    # A step that does not concern the node is done with the inventory, and again by itself.
    assert ended.pop("llm_job") == ["done", "done", "started"]
    assert ended == {stage: ["done", "started"] for stage in STAGES[:7]}
    proofs = rows(home, "SELECT kind, passed, seconds, replay FROM attestations")
    assert {row["kind"] for row in proofs} == set(STAGES[3:7])
    assert all(row["passed"] and row["seconds"] > 0 for row in proofs)
    assert all(json.loads(row["replay"]) for row in proofs)
    (facts,) = rows(home, "SELECT gpu_count, clock_offset_seconds FROM node_facts")
    assert facts["gpu_count"] == 0
    assert abs(facts["clock_offset_seconds"]) < 5


def shown_by(home: FleetHome, asset: str) -> dict[str, Any]:
    """Metadata of an asset's newest materialization."""
    event = home.instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    return {name: value.value for name, value in metadata.items()}


def test_the_whole_fleet_has_a_page(tmp_path: Path) -> None:
    home = FleetHome.make(tmp_path)
    with served(home.agent(Machine())) as port:
        home.declare({"n": port, "never": 9}, hourly_cost=1.5)
        assert home.verify()
        assert home.verify()
    home.fleet.close()
    run_page(home.definitions, home.instance)
    shown = shown_by(home, "fleet_page")
    verified, never = (record.data for record in shown["fleet"].records)
    assert (verified["node"], verified["state"], verified["proofs"]) == ("n", "verified", "fine")
    assert (never["node"], never["state"], never["since"]) == ("never", "new", "-")
    assert (shown["nodes"], shown["verified"], shown["dollars_per_hour"]) == (2, 1, 3.0)
    assert "data:image/png" in shown["timing"]


def test_the_page_is_made_by_the_hour_where_there_is_a_fleet(tmp_path: Path) -> None:
    home = FleetHome.make(tmp_path)
    with dg.build_schedule_context() as context:
        tick = partial(hourly_fleet_page, context, fleet=home.fleet)
        assert isinstance(tick(), dg.SkipReason)
        home.settings.fleet.write_text(LOCAL)
        assert isinstance(tick(), dg.RunRequest)


def test_facts_are_shown_as_the_nodes_networks_have_them(home: FleetHome, tmp_path: Path) -> None:
    shown = shown_by(home, "facts")
    assert shown["compute_subnet"]["ram"]["total"] > 0
    assert "chutes" not in shown
    other = FleetHome.make(tmp_path)
    card = {"index": 0, "uuid": "GPU-0f6a6111-e308-2445-16ae-f733a7591246", "name": "NVIDIA L40S"}
    gpu = card | {"vram_bytes": 48_300_000_000, "vram_used_bytes": 0}
    with served(other.agent(Machine({"facts": told(gpus=[gpu])}))) as port:
        other.declare({"n": port}, ["chutes"], gpu="l40s", gpu_count=1)
        assert other.verify("n", STAGES[:2])
    other.fleet.close()
    (device,) = shown_by(other, "facts")["chutes"]
    assert device["uuid"] == "0f6a6111e308244516aef733a7591246"
    assert device["gpu_identifier"] == "l40s"


def test_what_does_not_concern_a_node_is_a_row(home: FleetHome) -> None:
    skipped = [row for row in home.checks() if row["stage"] == "llm_job"]
    assert len(skipped) == 2
    for row in skipped:
        assert (row["network_verdict"], row["windrow_verdict"]) == (None, None)
        assert "does not declare n for compute-horde" in row["reason"]


def test_work_on_a_processor_says_so(home: FleetHome) -> None:
    said = {row["stage"] for row in home.checks() if row["check"] == "device"}
    assert said == set(STAGES[3:7])


def test_a_verified_node_is_not_due_and_then_looked_at(home: FleetHome) -> None:
    declared = home.fleet.fleet()
    now = time.time()
    assert whats_due(declared, home.lake, now) == []
    ((name, what),) = whats_due(declared, home.lake, now + 3600)
    assert (name, what.stages) == ("n", LOOK)


def test_a_node_declared_anew_is_due(home: FleetHome) -> None:
    node = home.fleet.node("n").model_copy(update={"hourly_cost": 9.0})
    declared = Fleet({"n": node}, WireGuard())
    ((_, what),) = whats_due(declared, home.lake, time.time())
    assert what.reason == "other declaration"


def test_a_run_of_what_concerns_a_node_verifies_it(tmp_path: Path) -> None:
    home = FleetHome.make(tmp_path)
    with served(home.agent(Machine())) as port:
        home.declare({"n": port})
        assert home.verify("n", concerned(STAGES, ()))
    home.fleet.close()
    assert home.standing().state == "verified"
    skipped = {row["stage"] for row in home.checks() if row["reason"].startswith("skipped")}
    assert skipped == set(STAGES[4:])


def test_another_driver_makes_a_node_due(home: FleetHome) -> None:
    now = time.time()
    row = dict.fromkeys(DATASETS["node_facts"].columns) | {
        "window_start": 30, "node": "n", "observed_at": now + 1, "driver": "600",
    }  # fmt: skip
    table = DATASETS["node_facts"].table([row])
    home.lake.write("node_facts", 30, "n.later", table)
    ((_, what),) = whats_due(home.fleet.fleet(), home.lake, now + 2)
    assert (what.reason, what.stages) == ("other driver", STAGES)


def test_a_node_may_be_called_as_the_trusted_one_is(tmp_path: Path) -> None:
    home = FleetHome.make(tmp_path)
    with served(home.agent(Machine())) as port:
        home.declare({"trusted": port})
        node = home.fleet.node("trusted")
        access = home.fleet.access(node)
        home.fleet.trusted(node)
        assert home.fleet.access(node) is access
        assert access.ask("ping", b"", timeout=10.0, max_bytes=0).body == b""
    home.fleet.close()


def test_the_sensor_follows_the_inventory(tmp_path: Path) -> None:
    home = FleetHome.make(tmp_path)
    home.settings.fleet.write_text(LOCAL)
    home.instance.add_dynamic_partitions("nodes", ["gone"])

    def tick() -> Any:
        context = dg.build_sensor_context(instance=home.instance)
        return stale_nodes(context, fleet=home.fleet, lake=home.lake)

    found = tick()
    (request,) = found.run_requests
    assert request.partition_key == "here"
    assert request.asset_selection == [dg.AssetKey(stage) for stage in STAGES[:4]]
    assert request.tags["node"] == "here"
    added, deleted = found.dynamic_partitions_requests
    assert (added.partition_keys, deleted.partition_keys) == (["here"], ["gone"])
    assert tick().run_requests[0].run_key == request.run_key
    home.settings.fleet.write_text(LOCAL + LOCAL.partition("\n")[2])
    with pytest.raises(InvalidFleet):
        tick()


def test_a_declared_node_is_a_partition_on_an_empty_instance(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fleet.yaml").write_text(LOCAL)
    monkeypatch.setenv("WINDROW_FLEET", str(tmp_path / "fleet.yaml"))
    for key in ("there", "HERE", "../here", ""):
        assert not nodes.has_partition_key(key, dynamic_partitions_store=instance)
    assert instance.get_dynamic_partitions("nodes") == []
    assert nodes.has_partition_key("here", dynamic_partitions_store=instance)
    assert instance.get_dynamic_partitions("nodes") == ["here"]


def test_a_run_carries_its_node_as_a_tag(home: FleetHome) -> None:
    runs = home.instance.get_runs()
    assert runs
    assert {run.tags["node"] for run in runs} == {"n"}
    assert {run.tags["lane"] for run in runs} == {"fleet"}
