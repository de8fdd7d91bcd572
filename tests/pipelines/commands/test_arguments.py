"""Arguments that cannot be meant are refused as what they are, before anything is looked up."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from windrow.engine.fleet.inventory import InvalidFleet, NodeExists
from windrow.pipelines.cli import app
from windrow.resources.fleet.inventory_file import FleetFile

GOOD = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
MISTYPED = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ"


@pytest.mark.parametrize(
    "hotkey", ["nonsense", "5Gwww", MISTYPED, GOOD.lower(), GOOD + "x", "0x00"]
)
@pytest.mark.parametrize(
    "command",
    [
        ["explain", "7668120", "HOTKEY"],
        ["verify", "--hotkey", "HOTKEY", "file.parquet"],
        ["agent", "--hotkey", "HOTKEY"],
        ["agent", "--hotkey", GOOD, "--caller", "HOTKEY"],
    ],
)
def test_what_is_not_a_hotkey_is_refused(command: list[str], hotkey: str) -> None:
    shown = CliRunner().invoke(app, [part.replace("HOTKEY", hotkey) for part in command])
    assert shown.exit_code == 2
    assert "is not a hotkey" in " ".join(shown.output.split())


@pytest.mark.parametrize("window", ["7", "-30", "31"])
def test_what_is_not_a_window_is_refused(window: str) -> None:
    shown = CliRunner().invoke(app, ["verify", f"--window={window}", "file.parquet"])
    assert shown.exit_code == 2
    assert "multiple of 30" in " ".join(shown.output.split())


def test_a_second_node_of_a_name_is_the_arguments_fault(tmp_path: Path) -> None:
    file = FleetFile(tmp_path / "fleet.yaml")
    file.add({"name": "a", "transport": "local"})
    before = file.path.read_bytes()
    with pytest.raises(NodeExists, match="already declares a node 'a'"):
        file.add({"name": "a", "transport": "local"})
    with pytest.raises(InvalidFleet, match="checksum"):
        file.add({"name": "b", "agent_hotkey": MISTYPED, "agent_key": "0" * 64, "host": "h"})
    assert file.path.read_bytes() == before
