"""`windrow node` and `windrow agent`: what they write, print and refuse."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from windrow.engine.fleet.inventory import InvalidFleet, NodeExists, UnknownNode
from windrow.networks.chutes.add_node import BadNodeImport
from windrow.pipelines.cli import app
from windrow.pipelines.commands.agent import NoCaller, NoNodeName, serve
from windrow.pipelines.commands.node_import import CannotImport
from windrow.resources.fleet.inventory_file import FleetFile
from windrow.resources.guarded_server import AddressTaken
from windrow.resources.secret import Secret
from windrow.resources.wallet import DevelopmentWallet

HOTKEY = DevelopmentWallet(Secret("//Operator")).hotkey
KEY = "ab" * 32


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetFile:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return FleetFile(tmp_path / "fleet.yaml")


def windrow(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["node", *arguments])


def test_nodes_are_added_listed_and_removed(fleet: FleetFile) -> None:
    assert windrow("add", "here", "--transport", "local").exit_code == 0
    options = ["--agent-hotkey", HOTKEY, "--agent-key", KEY, "--network", "gonka"]
    added = windrow("add", "far", "--host", "203.0.113.7", *options, "--gpu", "l40s",
                    "--gpu-count", "2", "--hourly-cost", "1.5")  # fmt: skip
    assert added.exit_code == 0, added.output
    node = fleet.load().node("far")
    assert (node.host, node.gpu, node.gpu_count, node.networks) == (
        "203.0.113.7", "l40s", 2, ("gonka",),
    )  # fmt: skip
    assert "hardware_class" not in fleet.path.read_text()
    listed = windrow("list").output
    assert "here" in listed
    assert "2 l40s" in listed
    assert "new" in listed
    assert windrow("remove", "here").exit_code == 0
    assert list(fleet.load().nodes) == ["far"]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["add", "UPPER", "--transport", "local"], InvalidFleet, "is no name"),
        (["add", "a", "--transport", "pigeon"], InvalidFleet, "transport"),
        (["add", "a"], InvalidFleet, "agent_hotkey"),
        (["add", "a", "--transport", "local", "--gpu", "l40s"], InvalidFleet, "go together"),
        (["remove", "nobody"], UnknownNode, "nobody"),
        (["verify", "nobody"], UnknownNode, "nobody"),
        (["import"], CannotImport, "give one of"),
        (["import", "--gonka", "gone.json"], CannotImport, "gone.json"),
        (["import", "--chutes", "add-node --name a"], BadNodeImport, "required"),
        (["import", "--chutes", "add-node", "--ansible", "x"], CannotImport, "give one of"),
    ],
)
def test_bad_input_is_named_and_writes_nothing(
    fleet: FleetFile, arguments: list[str], error: type[Exception], said: str
) -> None:
    result = windrow(*arguments)
    assert isinstance(result.exception, error), result.output
    assert said in str(result.exception)
    assert not fleet.path.exists()


def test_a_name_is_declared_once(fleet: FleetFile) -> None:
    windrow("add", "here", "--transport", "local")
    before = fleet.path.read_text()
    assert isinstance(windrow("add", "here", "--transport", "local").exception, NodeExists)
    assert fleet.path.read_text() == before


def test_imports_of_the_three_tools(fleet: FleetFile, tmp_path: Path) -> None:
    config = [{"id": "g1", "host": "10.0.0.1", "inference_port": 5050, "poc_port": 8080,
               "models": {"Qwen/QwQ-32B": {"args": ["--x"]}}}]  # fmt: skip
    (tmp_path / "node-config.json").write_text(json.dumps(config))
    done = windrow("import", "--gonka", "node-config.json", "--agent", f"g1={HOTKEY}:{KEY}:9000")
    assert done.exit_code == 0, done.exception
    assert "g1: MAX_CONCURRENT_POSITIVE, HARDWARE_MISSING (odd)" in done.output
    chutes = "chutes-miner add-node --name c1 --validator 5V --hourly-cost 2 --gpu-short-ref l40s"
    assert windrow("import", "--chutes", chutes, "--gpu-count", "8").exit_code == 0
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a1: {ansible_host: 192.0.2.1}}}\n")
    assert windrow("import", "--ansible", "hosts.yml").exit_code == 0
    nodes = fleet.load().nodes
    assert {name: node.transport for name, node in nodes.items()} == {
        "g1": "agent", "c1": "kubernetes", "a1": "kubernetes",
    }  # fmt: skip
    assert (nodes["g1"].agent_port, nodes["g1"].models[0].args) == (9000, ("--x",))
    assert (nodes["c1"].gpu_count, nodes["c1"].hourly_cost) == (8, 2.0)


def test_an_import_is_all_or_nothing(fleet: FleetFile, tmp_path: Path) -> None:
    (tmp_path / "two.json").write_text(
        json.dumps([{"id": "good", "host": "h", "models": {}}, {"id": "BAD", "host": "h h",
                                                               "models": {}}])
    )  # fmt: skip
    result = windrow("import", "--gonka", "two.json")
    assert isinstance(result.exception, InvalidFleet)
    assert "node bad: host" in str(result.exception)
    assert not fleet.path.exists()
    stray = windrow("import", "--gonka", "two.json", "--agent", f"other={HOTKEY}:{KEY}")
    assert "other, which is not imported" in str(stray.exception)


def test_an_agent_says_what_the_inventory_needs(tmp_path: Path) -> None:
    program = "from windrow.pipelines.cli import main; main()"
    command = [sys.executable, "-c", program, "agent", "--hotkey", HOTKEY, "--port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(5))
        assert re.search(r"agent_key: [0-9a-f]{64}\n", said)
        assert HOTKEY in said
        assert (tmp_path / ".windrow" / "agent.key").stat().st_mode & 0o777 == 0o600
        time.sleep(0.2)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stdout.close()


def test_an_agent_refuses_what_it_cannot_use() -> None:
    from rich.console import Console

    with pytest.raises(NoCaller, match="is no hotkey"):
        serve(Console(), "5short", [], "127.0.0.1", 0)
    with pytest.raises(NoNodeName, match="is no name of a node"):
        serve(Console(), HOTKEY, [], "127.0.0.1", 0, "Gpu 0")
    with pytest.raises(AddressTaken, match="Nothing can listen"):
        serve(Console(), HOTKEY, [], "203.0.113.1", 80)
