"""The UI of `dagster dev` in a real browser."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.conftest import ROOT
from windrow.resources.configuration.settings import Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WINDOW = "5000040"
ASSETS = ("trainer_bucket", "beacon", "checkpoint", "rollouts", "proofs", "submission", "upload")
START_SECONDS = 60.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="UI not tested: apt install chromium",
    ),
]


def _default_signals() -> None:
    """A shell may have told its jobs to ignore SIGINT, which Dagster maps SIGTERM to."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="module")
def ui(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a `dagster dev` over an instance where one window has its beacon."""
    home = tmp_path_factory.mktemp("dagster")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, home)
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "WINDROW_HOME": str(settings.home),
        "WINDROW_CHAIN_CLOCK": "stepped",
        "WINDROW_MAX_GROUPS": "1",
    }
    dagster = [sys.executable, "-m", "dagster"]
    command = [*dagster, "asset", "materialize", "--select", "beacon", "--partition", WINDOW]
    command += ["-m", "windrow.pipelines.definitions"]
    made = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (home / "dev.log").open("w") as log:
        server = subprocess.Popen(
            [*dagster, "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_default_signals,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, server, home / "dev.log")
            yield address
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            # Whatever it started goes with it, such as the run of the open window.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def _wait_for(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    began = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(f"{address}/server_info", timeout=1)
        except OSError:
            assert server.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() - began < START_SECONDS, log.read_text()[-4000:]
            time.sleep(0.1)
        else:
            return


def test_a_person_sees_the_window_assets_and_what_is_made(ui: str) -> None:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        # Narrower, and the graph hides the names of its assets.
        page = browser.new_page(viewport={"width": 2700, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{ui}/locations/windrow/asset-groups/window/lineage")
        for name in ASSETS:
            page.get_by_text(name, exact=True).first.wait_for()
        page.goto(f"{ui}/assets/beacon?view=partitions&partition={WINDOW}")
        page.get_by_text("Materialized", exact=True).first.wait_for()
        page.get_by_text("block_hash", exact=True).first.wait_for()
        browser.close()
    assert errors == []
