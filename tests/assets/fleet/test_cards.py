"""Nodes whose cards should have answered, and did not: unproven in every table."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.fleet import FleetHome, Machine, served, told
from windrow.pipelines.commands.named_queries import query_named
from windrow.pipelines.commands.node_table import print_nodes
from windrow.pipelines.commands.node_verify import run_page

STAGES = ["inventory", "facts", "preflight", "attestation"]


def shown(home: FleetHome) -> tuple[str, int, dict[str, Any], dict[str, Any]]:
    """The printed table, its count, the row of `node_states_now` and that of the page."""
    out = Console(record=True, width=160, file=io.StringIO())
    count = print_nodes(out, home.lake, home.fleet.fleet(), ["n"])
    (state,) = home.lake.query(query_named("node_states_now").sql).to_pylist()
    run_page(home.definitions, home.instance)
    import dagster as dg

    event = home.instance.get_latest_materialization_event(dg.AssetKey("fleet_page"))
    assert event is not None
    assert event.asset_materialization is not None
    page = event.asset_materialization.metadata["fleet"].value.records[0].data  # type: ignore[union-attr]
    return out.export_text(), count, state, dict(page)


@pytest.mark.parametrize(
    ("networks", "card"),
    [(["chutes"], {"gpu": "h200", "gpu_count": 8}), (["gonka", "compute-subnet"], {})],
)
def test_a_processor_in_place_of_cards_proves_nothing(
    tmp_path: Path, networks: list[str], card: dict[str, Any]
) -> None:
    home = FleetHome.make(tmp_path)
    with served(home.agent(Machine())) as port:
        home.declare({"n": port}, networks, **card)
        assert home.verify()
        table, count, state, page = shown(home)
    home.fleet.close()
    assert "unproven" in table
    assert "no card" in table
    assert count >= 1
    assert (state["state"], state["reason"]) == ("unproven", "no card")
    assert "no card" in state["detail"]
    assert (page["state"], page["proofs"]) == ("unproven", "no card")


def test_cards_that_vanish_after_they_were_proven(tmp_path: Path) -> None:
    """The proof is there; the newest facts no longer show the card."""
    home = FleetHome.make(tmp_path)
    home.settings.fleet.write_text("nodes: []\n")
    with served(home.agent(Machine())) as port:
        home.declare({"n": port})
        assert home.verify()
        assert shown(home)[2]["state"] == "verified"
        home.declare({"n": port}, gpu="h200", gpu_count=8)
        assert home.verify("n", ["facts"])
        _, count, state, page = shown(home)
        assert (state["state"], state["reason"]) == ("unproven", "no card")
        assert (page["state"], page["proofs"]) == ("unproven", "no card")
        assert count >= 1
        # Seven of them, or others, as the node tells.
        for name, number, label in (("NVIDIA H200", 7, "7 of 8"), ("NVIDIA L4", 8, "other card")):
            machine = Machine({"facts": told(gpus=[gpu(n, name) for n in range(number)])})
            with served(home.agent(machine)) as other:
                home.declare({"n": other}, gpu="h200", gpu_count=8)
                assert home.verify("n", ["facts"])
                _, _, state, page = shown(home)
            assert (state["state"], state["reason"]) == ("unproven", label)
            assert (page["state"], page["proofs"]) == ("unproven", label)
    home.fleet.close()


def gpu(index: int, name: str) -> dict[str, Any]:
    size = {"vram_bytes": 10**10, "vram_used_bytes": 0}
    return {"index": index, "uuid": f"GPU-{index}", "name": name, **size}
