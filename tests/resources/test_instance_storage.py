"""Dagster's SQLite files: one process at a time creates them, and a broken one is repaired."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from windrow.pipelines.commands import doctor, doctor_machine
from windrow.pipelines.commands.doctor_findings import State
from windrow.pipelines.instance import open_instance
from windrow.resources.configuration.settings import Settings
from windrow.resources.instance_storage import BrokenInstance, databases, repair, sqlite_folder

ROOT = Path(__file__).parents[2]
HOMES, PROCESSES = 3, 4
HEAD, OLD = "29b539ebc72a", "5771160a95ad"


@dg.op
def succeed() -> None:
    """Do nothing."""


@dg.job
def nothing() -> None:
    """Run one step."""
    succeed()


OPEN = """
import os, sys
import dagster as dg
from windrow.pipelines.instance import open_instance

opening = open_instance if sys.argv[1] == "windrow" else dg.DagsterInstance.get
print("ready", flush=True)
for line in sys.stdin:
    os.environ["DAGSTER_HOME"] = home = line.strip()
    os.chdir(home)
    try:
        with opening() as instance:
            instance.add_dynamic_partitions("n", [str(os.getpid())])
            instance.all_instigator_state()
            instance.get_runs_count()
            if sys.argv[1] == "dagster":  # a file of its own for each run, locked by our storage
                instance.all_logs("11111111-1111-4111-8111-111111111111")
        print("opened", flush=True)
    except Exception as error:
        print(type(error).__name__, repr(str(error)[:200]), flush=True)
"""


@pytest.mark.parametrize(("opener", "configured"), [("dagster", True), ("windrow", False)])
def test_processes_that_open_fresh_instances_at_once_break_none(
    tmp_path: Path, opener: str, *, configured: bool
) -> None:
    """Dagster's own entry points under our dagster.yaml, and Windrow's without any."""
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN, opener], stdin=pipe, stdout=pipe, text=True)
        for _ in range(PROCESSES)
    ]
    said = [_line(process) for process in processes]
    assert said == ["ready"] * PROCESSES
    for number in range(HOMES):
        home = tmp_path / str(number)
        home.mkdir()
        if configured:
            shutil.copy(ROOT / "dagster.yaml", home)
        for process in processes:
            assert process.stdin
            process.stdin.write(f"{home}\n")
            process.stdin.flush()
        assert [_line(process) for process in processes] == ["opened"] * PROCESSES
        found = databases(home / ".windrow" / "dagster" if configured else home)
        assert len(found) == (4 if configured else 3)
        assert {file.revisions for file in found} == {(HEAD,)}
    for process in processes:
        process.communicate(timeout=60)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one run, whose databases all have two revisions."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance() as instance:
        nothing.execute_in_process(instance=instance, tags={"kept": "yes"})
    for file in databases(tmp_path / ".windrow" / "dagster"):
        with sqlite3.connect(file.path) as connection:
            connection.execute("INSERT INTO alembic_version VALUES (?)", (OLD,))
    return tmp_path


def _findings() -> list[doctor_machine.Finding]:
    return [*doctor_machine.dagster(Settings.read())]


def test_a_broken_home_is_recognised_and_repaired_with_its_runs(home: Path) -> None:
    with pytest.raises(BrokenInstance, match="windrow doctor --repair"):
        open_instance()
    found = _findings()
    assert [finding.state for finding in found] == [State.MISSING] * 4
    assert all("windrow doctor --repair" in finding.todo for finding in found)

    doctor.repair(Console(quiet=True))

    assert [finding.state for finding in _findings()] == [State.FINE]
    with open_instance() as instance:
        (record,) = instance.get_run_records()
        assert record.dagster_run.tags["kept"] == "yes"
        assert record.dagster_run.status is dg.DagsterRunStatus.SUCCESS
        assert instance.all_logs(record.dagster_run.run_id)
        assert nothing.execute_in_process(instance=instance).success
    folder = home / ".windrow" / "dagster"
    assert repair(folder) == []
    assert len([*folder.rglob("*.db.before-repair")]) == 4


def test_an_unknown_revision_is_left_alone(home: Path) -> None:
    folder = home / ".windrow" / "dagster"
    with sqlite3.connect(folder / "history" / "runs.db") as connection:
        connection.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    before = databases(folder)
    with pytest.raises(BrokenInstance, match="Install the Dagster version"):
        repair(folder)
    assert databases(folder) == before


def test_an_older_revision_is_migrated(home: Path) -> None:
    folder = home / ".windrow" / "dagster"
    with sqlite3.connect(folder / "history" / "runs.db") as connection:
        connection.execute(
            "UPDATE alembic_version SET version_num = '7e2f3204cf8e' WHERE version_num = ?", (HEAD,)
        )
    repair(folder)
    assert {file.revisions for file in databases(folder)} == {(HEAD,)}


def test_a_file_that_is_not_a_database_is_named(home: Path) -> None:
    doctor.repair(Console(quiet=True))
    path = home / ".windrow" / "dagster" / "schedules" / "schedules.db"
    for file in path.parent.glob("schedules.db*"):
        file.unlink()
    path.write_bytes(b"not a database" * 100)
    (finding,) = _findings()
    assert finding.state is State.MISSING
    assert "schedules.db cannot be read" in finding.found


def test_another_storage_is_named(home: Path) -> None:
    (home / "dagster.yaml").write_text("storage: {sqlite: {base_dir: elsewhere}}\n")
    found = sqlite_folder(home)
    assert found is not None
    assert (found.path, found.locked) == (home / "elsewhere", False)
    (finding,) = _findings()
    assert finding.state is State.DOUBTFUL
    (home / "dagster.yaml").write_text("storage: [")
    (finding,) = _findings()
    assert "cannot be read" in finding.todo
