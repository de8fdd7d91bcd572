"""Proof workers killed, hung and left behind: no group is lost, and every proof is the same."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from tests.faults import children
from tests.faults.conftest import UNDISTURBED_GROUPS
from tests.faults.runs import Home, assert_completes, assert_nothing_partial
from tests.support.embedded import WINDOW
from tests.support.processes import ENVIRONMENT
from tests.support.proof_workers import no_worker_left, pids, stopped
from windrow.resources.proof_pool import pool as proof_pool
from windrow.resources.proof_pool.client import Limits

WITH_WORKERS = {"WINDROW_PROOF_SUBPROCESS": "yes", "WINDROW_PROOF_WORKERS": "2"}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of two workers that all the runs here share."""
    with no_worker_left(tmp_path_factory.mktemp("workers")) as folder:
        yield folder


def home_of(path: Path, tiny: Path, workers: Path) -> Home:
    """A home whose runs prove with the workers of a folder."""
    path.mkdir(exist_ok=True)
    (path / "proof-workers").symlink_to(workers)
    return Home.make(path, tiny, **WITH_WORKERS)


@pytest.fixture(scope="module")
def proved(tiny: Path, workers: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The groups of a window that the workers proved and nothing disturbed."""
    home = home_of(tmp_path_factory.mktemp("proved"), tiny, workers)
    assert home.mine(UNDISTURBED_GROUPS).success
    return home.groups()


@pytest.fixture
def home(tiny: Path, tmp_path: Path, workers: Path, proved: pa.Table) -> Home:
    """A home in which nothing was mined yet; the workers have the checkpoint loaded."""
    return home_of(tmp_path / "home", tiny, workers)


@contextmanager
def disturbed(happened: Callable[[], bool], disturb: Callable[[], None]) -> Iterator[None]:
    """While the block runs, wait until something has happened and then disturb it."""

    def wait_and_disturb() -> None:
        children.wait_until(happened)
        disturb()

    thread = threading.Thread(target=wait_and_disturb)
    thread.start()
    yield
    thread.join()


def test_workers_prove_what_the_run_itself_would(proved: pa.Table, undisturbed: pa.Table) -> None:
    same = {name for name in proved.column_names if proved[name].equals(undisturbed[name])}
    # The number of threads may change the last bits of what a model computes.
    assert set(proved.column_names) - same <= {"sketches", "token_logprobs"}


def test_a_worker_killed_in_the_middle_of_a_batch(
    home: Home, workers: Path, proved: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    before = pids(workers)
    victim = before["cpu-0"]

    def stand_still_and_die() -> None:
        # The batch that it has or is given lasts until it is killed.
        os.kill(victim, signal.SIGSTOP)
        children.wait_until(lambda: len(home.spooled()) == UNDISTURBED_GROUPS - 1)
        os.kill(victim, signal.SIGKILL)

    with disturbed(lambda: len(home.spooled()) >= 1, stand_still_and_die):
        assert home.mine(UNDISTURBED_GROUPS).success
    assert "WorkerDied" in caplog.text
    assert home.groups().equals(proved)
    assert home.faults() == []
    after = pids(workers)
    assert after["cpu-0"] != victim
    assert after["cpu-1"] == before["cpu-1"]


def test_a_worker_that_hangs(
    tiny: Path, tmp_path: Path, workers: Path, proved: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof_pool, "Limits", partial(Limits, prove_seconds=5.0))
    home = home_of(tmp_path / "home", tiny, workers)
    before = pids(workers)

    def hang() -> None:
        os.kill(before["cpu-1"], signal.SIGSTOP)

    with disturbed(lambda: len(home.spooled()) >= 1, hang):
        assert home.mine(UNDISTURBED_GROUPS).success
    assert home.groups().equals(proved)
    assert home.faults() == []
    assert not Path(f"/proc/{before['cpu-1']}/exe").exists()  # ended, at most a zombie
    assert pids(workers)["cpu-1"] != before["cpu-1"]


def test_workers_live_on_when_their_run_is_killed(
    home: Home, tiny: Path, workers: Path, proved: pa.Table
) -> None:
    before = pids(workers)
    with children.started(home.path, tiny, UNDISTURBED_GROUPS, None, WITH_WORKERS) as child:
        children.wait_until(lambda: len(home.spooled()) >= 2)
        child.kill()
        child.join()
    assert child.exitcode == -signal.SIGKILL
    kept = home.spooled()
    assert 2 <= len(kept) < UNDISTURBED_GROUPS
    assert_completes(home, proved, UNDISTURBED_GROUPS)
    assert pids(workers) == before
    (run,) = home.resource("lake").read("window_runs", WINDOW).to_pylist()
    assert run["resumed"] == len(kept)


@contextmanager
def commanded(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """The window mined by Dagster's own command, which takes SIGTERM for an interrupt."""
    command = [sys.executable, "-m", "dagster", "job", "execute"]
    command += ["-m", "windrow.pipelines.definitions", "-j", "mine_window"]
    command += ["--tags", f'{{"dagster/partition": "{WINDOW}"}}']
    environment = {
        **ENVIRONMENT,
        **WITH_WORKERS,
        "WINDROW_HOME": str(home.path),
        "WINDROW_MAX_GROUPS": str(UNDISTURBED_GROUPS),
        "TMPDIR": str(home.path),
    }
    with (
        (home.path / "log").open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as run,
    ):
        try:
            yield run
        finally:
            run.kill()


def test_told_to_stop_while_proofs_are_at_work(home: Home, workers: Path, proved: pa.Table) -> None:
    before = pids(workers)
    with stopped(before["cpu-0"]), stopped(before["cpu-1"]), commanded(home) as run:
        # They give no sign of life, so the run has found them hung and waits to be sure.
        children.wait_until(lambda: home.resource("lake").exists("checkpoints", WINDOW))
        time.sleep(3.0)
        run.terminate()
        run.wait(children.PATIENCE)
    assert run.returncode != 0
    assert "interrupted" in (home.path / "log").read_text().lower()
    assert home.uploaded() is None
    assert_nothing_partial(home.path)
    assert pids(workers) == before
    assert_completes(home, proved, UNDISTURBED_GROUPS)


@pytest.mark.parametrize("made", ["rollouts", "submissions"])
def test_told_to_stop_between_two_stages(home: Home, proved: pa.Table, made: str) -> None:
    with commanded(home) as run:
        children.wait_until(lambda: home.resource("lake").exists(made, WINDOW))
        run.terminate()
        run.wait(children.PATIENCE)
    assert_nothing_partial(home.path)
    assert_completes(home, proved, UNDISTURBED_GROUPS)
