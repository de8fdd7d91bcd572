"""SGLang's environment: which build of PyTorch is chosen, and whose folders are left alone."""

import os
import sys
import zipfile
from pathlib import Path

import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner

from windrow.pipelines.cli import app
from windrow.resources.generation.sglang_environment import (
    FREE_GB,
    MARK,
    TORCH,
    CannotInstall,
    Environment,
    has_nvidia_driver,
    offers_cuda,
)


def make_wheel(folder: Path, name: str, *requires: str) -> None:
    """An empty package as pip finds it in a folder."""
    version = TORCH.partition("==")[2] if name == "torch" else "1.0"
    file = name.replace("-", "_")
    info = f"{file}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{file}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows."""
    pytest.importorskip("pip")
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.parametrize(
    ("requires", "cuda"),
    [([], False), (["numpy-like"], False), (["cuda-bindings"], True), (["nvidia-cublas"], True)],
)
def test_cuda_libraries_are_seen_before_anything_is_installed(
    index: Path, requires: list[str], cuda: bool
) -> None:
    make_wheel(index, "torch", *requires)
    for name in requires:
        make_wheel(index, name)
    assert offers_cuda(Path(sys.executable), TORCH) is cuda


def test_an_index_without_pytorch_is_named(index: Path) -> None:
    with pytest.raises(CannotInstall, match="torch==") as refused:
        offers_cuda(Path(sys.executable), TORCH)
    assert "No matching distribution" in str(refused.value)


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
