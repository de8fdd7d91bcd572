"""SGLang's environment: which build of PyTorch is chosen, and whose folders are left alone."""

from pathlib import Path

import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner

from windrow.pipelines.cli import app
from windrow.resources.generation.sglang_environment import (
    FREE_GB,
    MARK,
    CannotInstall,
    Environment,
)
from windrow.resources.torch_build import has_nvidia_driver


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo").write_text("x")
    with pytest.raises(CannotInstall, match="did not install"):
        Environment(mine, "cpu").make(print)
    with pytest.raises(CannotInstall, match="is a file"):
        Environment(mine / "photo", "cpu").make(print)
    assert (mine / "photo").read_text() == "x"


def test_an_unfinished_environment_is_made_from_the_start_if_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FREE_GB, "cpu", 10**9)
    environment = Environment(tmp_path / "sglang", "cpu")
    environment.folder.mkdir()
    (environment.folder / MARK).write_text("")
    (environment.folder / "half").touch()
    with pytest.raises(CannotInstall, match="needs 1000000000 GB"):
        environment.make(print)
    assert not (environment.folder / "half").exists()
    assert not environment.complete()


def test_a_complete_environment_is_only_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    device = "cuda" if has_nvidia_driver() else "cpu"
    environment = Environment(tmp_path / ".windrow" / "sglang", device)
    environment.folder.mkdir(parents=True)
    (environment.folder / MARK).write_text(environment._recipe())
    assert not Environment(environment.folder, "other").complete()
    Path(".env").write_text("WINDROW_GENERATION_PYTHON=/old\n# kept\nWINDROW_MAX_GROUPS=3\n")
    for _ in range(2):
        ended = CliRunner().invoke(app, ["install", "sglang"], catch_exceptions=False)
        assert ended.exit_code == 0
        assert "complete already" in ended.output
    assert dotenv_values(".env") == {
        "WINDROW_GENERATION_PYTHON": str(environment.python),
        "WINDROW_MAX_GROUPS": "3",
    }
    assert Path(".env").read_text().count("WINDROW_GENERATION_PYTHON") == 1
    before = Path(".env").read_bytes()
    ended = CliRunner().invoke(app, ["install", "sglang", "--no-setting"], catch_exceptions=False)
    assert f"WINDROW_GENERATION_PYTHON={environment.python}" in ended.output.replace("\n", "")
    assert Path(".env").read_bytes() == before


def test_one_device_is_chosen() -> None:
    ended = CliRunner().invoke(app, ["install", "sglang", "--cpu", "--cuda"])
    assert ended.exit_code == 2
