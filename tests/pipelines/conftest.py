"""An embedded home shared by a session, and a Dagster instance configured as the repository's."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from tests.pipelines.demonstrated import Demonstrated
from tests.support.embedded import embedded_settings
from windrow.pipelines.demo.run import run_demo
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse.lake import Lake

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose bucket holds a tiny checkpoint; the chain stands still."""
    home = tmp_path_factory.mktemp("windrow")
    return embedded_settings(home, WINDROW_CHAIN_CLOCK="stepped")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An empty instance in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def instance_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An empty instance of the repository's dagster.yaml, its files under `tmp_path`."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Demonstrated:
    """The demo, run once on a terminal of 80 columns."""
    folder = tmp_path_factory.mktemp("demo") / "windrow-demo"
    stepped = {"WINDROW_CHAIN_CLOCK": "stepped"}
    out = Console(file=io.StringIO(), width=80)
    run_demo(out, windows=1, groups=2, folder=folder, given=stepped)
    settings = Settings.read({"WINDROW_HOME": str(folder / ".windrow"), **stepped})
    (window,) = Lake(settings.lake).query("SELECT DISTINCT window_start FROM scores").to_pylist()
    return Demonstrated(settings, out.file.getvalue(), window["window_start"])
