"""An embedded home shared by a session, and a Dagster instance configured as the repository's."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.support.embedded import embedded_settings
from windrow.resources.settings import Settings

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
