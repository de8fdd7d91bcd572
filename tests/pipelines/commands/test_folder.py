"""`windrow init`, the folder it makes, and where Dagster keeps its instance."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner

from tests.pipelines.conftest import ROOT
from windrow.pipelines.cli import app
from windrow.pipelines.commands import folder as commands
from windrow.pipelines.commands.folder import (
    FILES,
    ContradictingSettings,
    NoInstance,
    refuse_contradictions,
    require_instance,
    write_files,
    write_setting,
)
from windrow.pipelines.commands.ui import AddressTaken
from windrow.resources.configuration.settings import Settings
from windrow.resources.files import PathRefused
from windrow.resources.fleet.inventory_file import FleetFile


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def windrow(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The command as a shell starts it."""
    command = [sys.executable, "-m", "windrow.pipelines.cli", *arguments]
    return subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False
    )


def test_init_writes_what_the_repository_has_and_keeps_what_is_there() -> None:
    Path("fleet.yaml").write_text("nodes: []\n")
    first = CliRunner().invoke(app, ["init"])
    assert first.exit_code == 0, first.output
    assert "kept   fleet.yaml" in first.output
    assert "wrote  dagster.yaml" in first.output
    assert Path("fleet.yaml").read_text() == "nodes: []\n"
    for name, source in FILES.items():
        if name != "fleet.yaml":
            assert Path(name).read_bytes() == (ROOT / source).read_bytes()
    assert stat.S_IMODE(Path(".env").stat().st_mode) == 0o600
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    second = CliRunner().invoke(app, ["init"])
    assert second.output.count("kept") == len(FILES)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_init_makes_an_installation_whose_commands_work(empty_folder: Path) -> None:
    made = CliRunner().invoke(app, ["init", "new place"])
    assert made.exit_code == 0, made.output
    assert "cd 'new place'" in made.output
    new = empty_folder / "new place"
    os.chdir(new)
    assert FleetFile(new / "fleet.yaml").load().nodes == {}
    assert Settings.read().home == new / ".windrow"
    registered = windrow("windows", "5000040", "5000070")
    assert registered.returncode == 0, registered.stderr
    assert (new / ".windrow" / "dagster").is_dir()
    said = next(line for line in registered.stdout.splitlines() if "dagster job" in line)
    assert said.split()[:3] == ["windrow", "dagster", "job"]
    asked = windrow("dagster", "instance", "info")
    assert asked.returncode == 0, asked.stderr
    assert f"$DAGSTER_HOME: {new}" in asked.stdout


def test_init_says_whose_secrets_others_can_read() -> None:
    Path(".env").write_text("R2_WRITE_SECRET_ACCESS_KEY=x\n")
    Path(".env").chmod(0o644)
    assert "chmod 600 .env" in CliRunner().invoke(app, ["init"]).output


def test_init_names_a_folder_it_cannot_make() -> None:
    Path("file").touch()
    result = CliRunner().invoke(app, ["init", "file/below"])
    assert isinstance(result.exception, PathRefused)


def test_the_environment_names_the_instance_before_the_folder_does(empty_folder: Path) -> None:
    write_files(empty_folder)
    other = empty_folder / "other"
    other.mkdir()
    shutil.copy("dagster.yaml", other)
    show = "import os; from windrow.pipelines.commands.folder import *; adopt_folder(); "
    show += "print(require_instance())"
    for variables, expected in (({}, empty_folder), ({"DAGSTER_HOME": str(other)}, other)):
        found = subprocess.run(
            [sys.executable, "-c", show],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == str(expected)


@pytest.mark.parametrize("home", ["", "relative", "/nowhere/at/all"])
def test_an_instance_that_cannot_be_is_refused(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    with pytest.raises(NoInstance, match="windrow init" if not home else "DAGSTER_HOME="):
        require_instance()


@pytest.mark.parametrize("command", [["ui"], ["windows", "30", "60"], ["dagster", "job", "list"]])
def test_commands_that_need_an_instance_say_how_to_make_one(command: list[str]) -> None:
    Path("fleet.yaml").write_text("nodes:\n  - {name: here, transport: local}\n")
    ended = windrow(*command)
    assert ended.returncode == 2
    assert "windrow init" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {path.name for path in Path().iterdir()} <= {"fleet.yaml", ".windrow"}


def test_the_ui_is_refused_an_address_that_is_taken(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(empty_folder)
    monkeypatch.setenv("DAGSTER_HOME", str(empty_folder))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["ui", "--port", str(port)])
    assert isinstance(result.exception, AddressTaken)
    assert f"--port {port + 1}" in str(result.exception)
    result = CliRunner().invoke(app, ["ui", "--host", "203.0.113.77"])
    assert isinstance(result.exception, AddressTaken)


def test_a_variable_with_two_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("WINDROW_MAX_GROUPS=3\nWINDROW_WALLET_URI=//Secret\n")
    refuse_contradictions()
    monkeypatch.setenv("WINDROW_MAX_GROUPS", "3")
    refuse_contradictions()
    monkeypatch.setenv("WINDROW_WALLET_URI", "//Other")
    with pytest.raises(ContradictingSettings) as refused:
        refuse_contradictions()
    assert "unset WINDROW_WALLET_URI" in str(refused.value)
    assert "Secret" not in str(refused.value)


@pytest.mark.parametrize("value", ["/opt/sglang/bin/python", "/a b/it's/#5/\\x/ü"])
def test_a_setting_is_written_between_the_other_lines(value: str) -> None:
    env = Path(".env")
    lines = ["# a comment", "BT_WALLET_HOT=miner", "export A='two", "lines'", "# X=none"]
    env.write_text("\n".join(lines))
    env.chmod(0o640)
    write_setting(env, "X", "first")
    write_setting(env, "X", value)
    assert dotenv_values(env) == {"BT_WALLET_HOT": "miner", "A": "two\nlines", "X": value}
    assert env.read_text().splitlines()[:5] == lines
    assert sum(line.startswith("X=") for line in env.read_text().splitlines()) == 1
    assert stat.S_IMODE(env.stat().st_mode) == 0o640
    env.unlink()
    write_setting(env, "X", value)
    assert stat.S_IMODE(env.stat().st_mode) == 0o600


def test_the_way_back_can_be_pasted(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = empty_folder / "it's here"
    away.mkdir()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    lines = commands.way_back(away)
    assert lines[-1].startswith("cd ")
    script = "\n".join([*lines, "pwd", "command -v windrow"])
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    folder, command = shown.stdout.splitlines()
    assert folder == str(away)
    assert Path(command) == Path(sys.executable).parent / "windrow"
