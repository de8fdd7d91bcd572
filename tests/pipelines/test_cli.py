"""The `windrow` command: what it prints and how it exits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from tests.support.lake_rows import rows_of
from windrow.pipelines.cli import app
from windrow.pipelines.commands.windows import NoSuchWindows
from windrow.resources.configuration.settings import Settings
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.catalogue import QueryRefused
from windrow.resources.warehouse.lake import Lake

WINDOW = 5_000_040


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded home of the session, on a terminal wide enough for any table."""
    monkeypatch.setenv("WINDROW_HOME", str(settings.home))
    monkeypatch.setenv("WINDROW_CHAIN_CLOCK", "stepped")
    monkeypatch.setenv("COLUMNS", "200")


def windrow(*arguments: str) -> str:
    """What a command that succeeds prints."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_status_shows_the_open_window_and_the_newest_ones(settings: Settings) -> None:
    hotkey = DevelopmentWallet(settings.wallet_uri).hotkey
    lake = Lake(settings.lake)
    values = {"hotkey": hotkey, "stage": "open_window", "reason": "missed", "recorded_at": 1.0}
    lake.write("faults", WINDOW, "cli", rows_of("faults", WINDOW, 1, **values), replace=True)
    printed = windrow("status")
    assert hotkey in printed
    assert "is open for" in printed
    assert str(WINDOW) in printed
    assert "missed" in printed


def test_doctor_lists_settings_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("R2_WRITE_SECRET_ACCESS_KEY", "s3cr3t")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "has no dagster.yaml" in " ".join(re.sub("[│┃]", " ", result.output).split())
    assert "windrow init" in result.output
    assert "WINDROW_MAX_GROUPS" in result.output
    assert "development chain at block" in result.output
    assert "R2_WRITE_SECRET_ACCESS_KEY" in result.output
    assert "s3cr3t" not in result.output
    assert "//Windrow" not in result.output


def test_doctor_misses_a_gpu_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("WINDROW_PROOF_GPU", "99")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "proofs would need GPU 99" in result.output


def test_sql_prints_rows_and_says_how_many_there_are(settings: Settings) -> None:
    rows = rows_of("beacons", WINDOW, 3, source="block hash")
    Lake(settings.lake).write("beacons", WINDOW, "cli", rows, replace=True)
    query = f"SELECT window_start, source FROM beacons WHERE window_start = {WINDOW}"
    printed = windrow("sql", query, "--rows", "2")
    assert printed.count("block hash") == 2
    assert "2 of 3 rows" in printed


def test_sql_prints_a_column_a_line_where_a_row_is_too_wide(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of("beacons", WINDOW, 1, randomness="5e" * 32)
    Lake(settings.lake).write("beacons", WINDOW, "cli", rows, replace=True)
    monkeypatch.setenv("COLUMNS", "100")
    printed = windrow("sql", f"SELECT * FROM beacons WHERE window_start = {WINDOW}")
    assert "5e" * 32 in printed
    assert len([line for line in printed.splitlines() if "randomness" in line]) == 1


def test_sql_lists_every_table() -> None:
    printed = windrow("sql", "--list")
    for name in ("beacons", "rollouts", "uploads", "faults"):
        assert name in printed


@pytest.mark.parametrize(
    "statement",
    [
        "DROP VIEW beacons",
        "INSERT INTO faults VALUES (1)",
        "SELECT 1; DROP VIEW beacons",
        "COPY beacons TO 'out.csv'",
        "ATTACH 'other.duckdb'",
        "SELECT * FROM read_text('/etc/hostname')",
        "SET enable_external_access = true",
    ],
)
def test_sql_refuses_what_is_not_a_question_to_the_lake(statement: str) -> None:
    result = CliRunner().invoke(app, ["sql", statement])
    assert isinstance(result.exception, QueryRefused)


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["sql", "SELECT 1; SELECT 2"], {}, "QueryRefused"),
        (["status"], {"WINDROW_CHAIN_CLOK": "wall"}, "did you mean WINDROW_CHAIN_CLOCK?"),
        (["windows", "5000041", "5000070"], {}, "5000041 is no window"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    arguments: list[str], variables: dict[str, str], said: str
) -> None:
    command = [sys.executable, "-m", "windrow.pipelines.cli", *arguments]
    ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_windows_registers_a_range_in_any_order(instance_on_disk: dg.DagsterInstance) -> None:
    printed = windrow("windows", "5000100", "5000160")
    assert "3 windows are registered, 3 of them new" in printed
    assert "-j mine_window --from 5000100 --to 5000160" in printed
    assert "5 windows are registered, 2 of them new" in windrow("windows", "5000040", "5000160")
    assert len(instance_on_disk.get_dynamic_partitions("windows")) == 5


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("60", "30", "older one first"),
        ("0", "600000", "register 1 to 3360"),
        ("999999999990", "999999999990", "still to come"),
    ],
)
def test_windows_refuses_a_range_nobody_can_mine(
    instance_on_disk: dg.DagsterInstance, first: str, last: str, said: str
) -> None:
    result = CliRunner().invoke(app, ["windows", first, last])
    assert isinstance(result.exception, NoSuchWindows)
    assert said in str(result.exception)
    assert instance_on_disk.get_dynamic_partitions("windows") == []


def test_a_backfill_of_registered_windows_queues_a_run_for_each(
    instance_on_disk: dg.DagsterInstance, tmp_path: Path
) -> None:
    windrow("windows", "5000040", "5000070")
    (tmp_path / "workspace.yaml").write_text(
        json.dumps({"load_from": [{"python_module": "windrow.pipelines.definitions"}]})
    )
    command = [sys.executable, "-m", "dagster", "job", "backfill", "-w", "workspace.yaml"]
    command += ["-j", "mine_window", "--from", "5000040", "--to", "5000070", "--noprompt"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    queued = [record.dagster_run for record in instance_on_disk.get_run_records()]
    assert {run.tags["dagster/partition"] for run in queued} == {"5000040", "5000070"}
    assert {run.status for run in queued} == {dg.DagsterRunStatus.QUEUED}
    assert {run.tags["lane"] for run in queued} == {"window"}
