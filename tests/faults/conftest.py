"""One tiny checkpoint and one undisturbed window for every fault to be measured against."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.faults.runs import Home
from tests.support.tiny_checkpoint import make_tiny_checkpoint

UNDISTURBED_GROUPS = 6


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sound checkpoint."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), max_tokens=40)


@pytest.fixture(scope="session")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The groups of a window whose run nothing disturbed, GROUP_COLUMNS."""
    home = Home.make(tmp_path_factory.mktemp("undisturbed"), tiny)
    assert home.mine(UNDISTURBED_GROUPS).success
    return home.groups()


@pytest.fixture
def home(tiny: Path, tmp_path: Path) -> Home:
    """A home in which nothing was mined yet."""
    return Home.make(tmp_path / "home", tiny)


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Makes a later checkpoint than the sound one; options as `make_tiny_checkpoint`."""

    def make(window: int = 300, **options: object) -> Path:
        folder = tmp_path / f"made-{window}"
        return make_tiny_checkpoint(folder, window=window, **{"max_tokens": 40, **options})

    return make
