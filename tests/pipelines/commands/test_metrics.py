"""`windrow metrics` as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.lake_rows import rows_of
from windrow.pipelines.live import open_wallet
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse.lake import Lake

WINDOW = 5_000_040


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, told: signal.Signals) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path)})
    hotkey = open_wallet(settings).hotkey
    rows = rows_of("submissions", WINDOW, 1, hotkey=hotkey, groups=5)
    Lake(settings.lake).write("submissions", WINDOW, hotkey, rows)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "windrow.pipelines.cli", "metrics", "--port", port]
    environment = os.environ | {"WINDROW_HOME": str(tmp_path)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}/metrics" in process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        assert 'windrow_groups{role="mining"} 5.0' in text
        assert "process_resident_memory_bytes" in text
        time.sleep(0.1)
        process.send_signal(told)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
