"""The W&B tracker: what an offline run holds, and that a broken one ends in time."""

import os
import time
from pathlib import Path

import pytest

from tests.support.wandb_runs import offline_runs
from windrow.resources.secret import Secret
from windrow.resources.tracking.metrics import WindowMetrics
from windrow.resources.tracking.tracker import TrackingFailed, WandbTracker

WINDOW = 5_000_040
HOTKEY = "5FqRrXd42xpzxyrFkKSkp6hoy2fJzMScekWFq9sc7wELMyes"


def metrics(window: int, **values: float) -> WindowMetrics:
    return WindowMetrics("mining", HOTKEY, window, values)


def test_an_offline_run_holds_what_was_logged(tmp_path: Path) -> None:
    tracker = WandbTracker(
        tmp_path, project="grail", entity="tplr", mode="offline", api_key=Secret("5" * 40)
    )
    tracker.log(metrics(WINDOW, rollouts=32, margin=-1.5))
    tracker.log(metrics(WINDOW + 30, rollouts=48))
    first, second = offline_runs(tmp_path)
    assert (first.project, first.entity, first.name) == ("grail", "tplr", f"mining_{HOTKEY}")
    assert first.id == second.id
    (row,) = first.history
    assert row["block_number"] == WINDOW
    assert (row["rollouts"], row["margin"]) == (32, -1.5)
    assert second.history[0]["rollouts"] == 48
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"5" * 40 not in stored


def test_another_role_is_another_run(tmp_path: Path) -> None:
    tracker = WandbTracker(tmp_path, project="grail", mode="offline")
    tracker.log(metrics(WINDOW, rollouts=32))
    tracker.log(WindowMetrics("validation", HOTKEY, WINDOW, {"windrow/copiers": 0.0}))
    assert len({run.id for run in offline_runs(tmp_path)}) == 2


def test_disabled_makes_nothing(tmp_path: Path) -> None:
    WandbTracker(tmp_path / "made", project="grail", mode="disabled").log(metrics(WINDOW, a=1))
    assert not (tmp_path / "made").exists()


def test_a_server_that_does_not_answer_costs_the_time_allowed_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    tracker = WandbTracker(tmp_path, project="grail", api_key=Secret("5" * 40), seconds=4)
    began = time.monotonic()
    with pytest.raises(TrackingFailed, match="did not take window 5000040 in 4 s"):
        tracker.log(metrics(WINDOW, rollouts=32))
    assert time.monotonic() - began < 30
    assert _processes_under(tmp_path) == []


def test_a_refusal_is_named_without_the_key(tmp_path: Path) -> None:
    tracker = WandbTracker(tmp_path, project="grail/x", mode="offline", api_key=Secret("hunter2"))
    with pytest.raises(TrackingFailed, match="W&B refused window 5000040") as caught:
        tracker.log(metrics(WINDOW, rollouts=32))
    assert "hunter2" not in str(caught.value)


def _processes_under(folder: Path) -> list[str]:
    """Processes whose environment or arguments name a folder; this one apart."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found
