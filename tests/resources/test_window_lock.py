"""Two runs never work on the same window of a hotkey."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from windrow.resources.window_lock import WindowBusy, window_lock

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"

HOLDER = f"""
import os, sys, time
from pathlib import Path
from windrow.resources.window_lock import window_lock

with window_lock(Path(sys.argv[1]), 60, {HOTKEY!r}, "run-of-child"):
    if len(sys.argv) > 2 and os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(600)
    os.write(1, b"held\\n")
    time.sleep(600)
"""


def holder(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def kill(child: "subprocess.Popen[str]") -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    if child.stdout:
        child.stdout.close()


def test_a_window_is_free_again_after_its_run(tmp_path: Path) -> None:
    for run_id in ("run-1", "run-2"):
        with window_lock(tmp_path / "locks", 60, HOTKEY, run_id):
            pass


def test_other_windows_and_hotkeys_are_free(tmp_path: Path) -> None:
    with (
        window_lock(tmp_path, 60, HOTKEY, "run-1"),
        window_lock(tmp_path, 90, HOTKEY, "run-2"),
        window_lock(tmp_path, 60, "other", "run-3"),
    ):
        pass


def test_a_second_run_of_this_process_is_refused(tmp_path: Path) -> None:
    with (
        window_lock(tmp_path, 60, HOTKEY, "run-1"),
        pytest.raises(WindowBusy, match=rf"run run-1 \(process {os.getpid()}, since "),
        window_lock(tmp_path, 60, HOTKEY, "run-2"),
    ):
        pass


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    child = holder(tmp_path)
    assert child.stdout is not None
    child.stdout.readline()
    with (
        pytest.raises(WindowBusy, match=rf"run run-of-child \(process {child.pid}"),
        window_lock(tmp_path, 60, HOTKEY, "run-2"),
    ):
        pass
    kill(child)
    with window_lock(tmp_path, 60, HOTKEY, "run-2"):
        pass


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_run(tmp_path: Path) -> None:
    child = holder(tmp_path, "fork")
    assert child.stdout is not None
    lines = {child.stdout.readline().strip(), child.stdout.readline().strip()}
    worker = int((lines - {"held"}).pop())
    try:
        kill(child)
        with window_lock(tmp_path, 60, HOTKEY, "run-2"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_hotkey_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a hotkey"), window_lock(tmp_path, 60, "../x", "run"):
        pass
    assert list(tmp_path.iterdir()) == []
