"""`windrow publish`: what a trainer puts into its bucket is what miners find there."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.resources.test_delta_checkpoints import next_checkpoint, step
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.pipelines.commands.publish import publish
from windrow.pipelines.live import open_store, open_wallet
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.publishing import CheckpointPublished
from windrow.resources.configuration.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDROW_CHAIN_CLOCK", "stepped")
    return Settings.read()


def said(folder: Path, **options: object) -> str:
    out = io.StringIO()
    publish(Console(file=out, width=400), folder, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_a_trainers_checkpoints_are_found_by_miners(settings: Settings, tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path / "made", window=0)
    assert "checkpoint 330 is published as FULL in" in said(folder, window=330)
    first = verify_checkpoint(folder)
    assert (first.metadata.window, first.metadata.env_id) == (330, "gsm8k")
    second = next_checkpoint(first, 360, step(30))
    assert "checkpoint 360 is published as DELTA in" in said(second)

    hotkey = open_wallet(settings).hotkey
    found = CheckpointCache(open_store(settings), tmp_path / "cache", hotkey)
    assert found.select(2**40) == 360
    assert found.fetch(360).weights_hash == verify_checkpoint(second).weights_hash
    with pytest.raises(CheckpointPublished):
        said(second)


def test_what_a_publisher_no_longer_keeps_is_deleted_on_request(
    settings: Settings, tmp_path: Path
) -> None:
    folder = make_tiny_checkpoint(tmp_path / "made")
    for window in (330, 360, 390, 420):
        told = said(folder, window=window, full=True)
        assert "as FULL in" in told
        assert "deleted" not in told
    assert "deleted checkpoint 330" in said(folder, window=450, full=True, prune=True)
    keys = {info.key.split("/")[2] for info in open_store(settings).list("grail/checkpoints/")}
    assert "checkpoint-330" not in keys
    assert {"checkpoint-390", "checkpoint-420", "checkpoint-450"} <= keys
