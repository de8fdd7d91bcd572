"""Runs that end at any moment, and two at once: the next run ends with the same groups."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.faults import children
from tests.faults.conftest import UNDISTURBED_GROUPS
from tests.faults.runs import (
    Home,
    assert_completes,
    assert_nothing_partial,
    assert_refused,
    assert_visible_is_whole,
)
from tests.support.embedded import WINDOW
from tests.support.processes import ENVIRONMENT

ROOT = Path(__file__).parents[2]


def test_killed_in_the_middle_of_generation(home: Home, tiny: Path, undisturbed: pa.Table) -> None:
    with children.started(home.path, tiny, UNDISTURBED_GROUPS) as child:
        children.wait_until(lambda: len(home.spooled()) >= 2)
        child.kill()
        child.join()
    assert child.exitcode == -signal.SIGKILL
    kept = home.spooled()
    assert 2 <= len(kept) < UNDISTURBED_GROUPS
    assert home.uploaded() is None
    assert_visible_is_whole(home.path)

    written = {path: path.stat().st_mtime_ns for path in (home.path / "spool").rglob("*.parquet")}
    assert_completes(home, undisturbed, UNDISTURBED_GROUPS)
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())
    (run,) = home.resource("lake").read("window_runs", WINDOW).to_pylist()
    assert (run["resumed"], run["finished"]) == (len(kept), UNDISTURBED_GROUPS - len(kept))
    assert (run["reproducible"], run["weights_proof"]) == (True, "own")


@pytest.mark.parametrize("dataset", ["rollouts", "submissions", "uploads"])
def test_killed_between_two_stages(
    home: Home, tiny: Path, undisturbed: pa.Table, dataset: str
) -> None:
    with children.started(home.path, tiny, 2, dataset) as child:
        child.join(children.PATIENCE)
    assert child.exitcode == -signal.SIGKILL
    assert home.spooled() == [0, 1]
    assert not home.resource("lake").exists(dataset, WINDOW)
    assert_visible_is_whole(home.path)
    uploaded = home.uploaded()
    assert (uploaded is not None) == (dataset == "uploads")
    assert_completes(home, undisturbed)
    if uploaded is not None:
        assert home.uploaded() == uploaded


def test_two_runs_of_a_window_at_once(home: Home, tiny: Path, undisturbed: pa.Table) -> None:
    with children.started(home.path, tiny, UNDISTURBED_GROUPS) as first:
        children.wait_until(lambda: len(home.spooled()) >= 1)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGSTOP)  # the middle of its work lasts as long as we like
        refused = home.mine()
        words = (f"process {first.pid}", "Wait for that run")
        assert_refused(home, refused, "window_stream", "WindowBusy", *words)
        assert home.uploaded() is None
        os.kill(first.pid, signal.SIGCONT)
        first.join(children.PATIENCE)
    assert first.exitcode == 0
    assert home.groups().equals(undisturbed)
    assert [row["reason"] for row in home.faults()] == ["WindowBusy"]


def test_told_to_stop(home: Home, undisturbed: pa.Table) -> None:
    command = [sys.executable, "-m", "dagster", "job", "execute"]
    command += ["-m", "windrow.pipelines.definitions", "-j", "mine_window"]
    command += ["--tags", f'{{"dagster/partition": "{WINDOW}"}}']
    environment = {
        **ENVIRONMENT,
        "WINDROW_HOME": str(home.path),
        "WINDROW_MAX_GROUPS": str(UNDISTURBED_GROUPS),
        "TMPDIR": str(home.path),
    }
    log = home.path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as run,
    ):
        children.wait_until(lambda: len(home.spooled()) >= 2)
        run.terminate()
        run.wait(children.PATIENCE)
    assert run.returncode != 0
    assert "interrupted" in log.read_text().lower()
    assert 2 <= len(home.spooled()) < UNDISTURBED_GROUPS
    assert home.uploaded() is None
    assert_nothing_partial(home.path)
    assert_completes(home, undisturbed, UNDISTURBED_GROUPS)


def test_killed_on_the_command_line_and_run_again(tiny: Path, tmp_path: Path) -> None:
    """On one lasting instance and without a daemon: nothing of the killed run is in the way."""
    home = Home.make(tmp_path / "home", tiny)
    instance = tmp_path / "dagster"
    instance.mkdir()
    (instance / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize"),
        *("-m", "windrow.pipelines.definitions", "--select", "*upload", "--partition", str(WINDOW)),
    ]
    given = {
        "DAGSTER_HOME": str(instance),
        "WINDROW_HOME": str(home.path),
        "WINDROW_MAX_GROUPS": "4",
    }
    environment = ENVIRONMENT | given
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True) as run:
        children.wait_until(lambda: len(home.spooled()) >= 1)
        os.killpg(run.pid, signal.SIGKILL)
    again = subprocess.run(command, cwd=tmp_path, env=environment, timeout=120, check=False)
    assert again.returncode == 0
    assert home.spooled() == [0, 1, 2, 3]
    assert home.uploaded() is not None
