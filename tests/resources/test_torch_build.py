"""Which build of PyTorch a machine gets: what its driver, pip's candidate and TORCH decide."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from windrow.resources import torch_build
from windrow.resources.torch_build import NoBuild, choose, offers_cuda

TORCH = "torch==2.13.0"


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
    with pytest.raises(NoBuild, match="torch==") as refused:
        offers_cuda(Path(sys.executable), TORCH)
    assert "No matching distribution" in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "driver", "cuda", "build", "backend"),
    [
        ("auto", False, True, "cpu", "cpu"),  # Linux without a GPU
        ("auto", False, False, "cpu", None),  # macOS, or a mirror that has the CPU build
        ("auto", True, True, "cuda", None),
        ("auto", True, False, "cuda", "auto"),
        ("cpu", True, True, "cpu", "cpu"),
        ("cpu", True, False, "cpu", None),
        ("cuda", False, False, "cuda", "auto"),
        ("cuda", False, True, "cuda", None),
        ("pip", False, True, "any", None),
        ("pip", True, False, "any", None),
    ],
)
def test_the_build_fits_the_machine(
    wanted: str, driver: bool, cuda: bool, build: str, backend: str | None
) -> None:
    found = choose(wanted, driver=lambda: driver, offers_cuda=lambda: cuda)
    assert (found.build, found.backend, found.index) == (build, backend, None)


def never() -> bool:
    raise AssertionError("nobody needs to be asked")


def test_an_index_is_taken_as_given() -> None:
    found = choose("https://mirror.example/cpu", driver=never, offers_cuda=never)
    assert (found.build, found.index) == ("any", "https://mirror.example/cpu")


@pytest.mark.parametrize("wanted", ["", "gpu", "CPU", "cpu "])
def test_another_word_is_refused(wanted: str) -> None:
    with pytest.raises(NoBuild, match="auto, cpu, cuda, pip"):
        choose(wanted, driver=never, offers_cuda=never)


def test_it_runs_without_windrow_and_says_what_it_chose(index: Path, tmp_path: Path) -> None:
    """As the Makefile runs it, in an environment that has nothing but pip."""
    make_wheel(index, "torch")
    constraint = tmp_path / "constraints.txt"
    constraint.write_text(f"{TORCH}\n")
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    command = [python, torch_build.__file__, "--python", python, "--constraint", constraint]
    done = subprocess.run([*command, "--torch", "cpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PyTorch: CPU build (TORCH=cpu)" in done.stdout
    assert list(environment.glob("lib/python*/site-packages/torch-2.13.0.dist-info"))


def test_a_build_that_cannot_be_had_is_named_and_nothing_else_is_installed(
    index: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_wheel(index, "torch", "nvidia-cublas")
    make_wheel(index, "nvidia-cublas")
    constraint = tmp_path / "constraints.txt"
    constraint.write_text(f"{TORCH}\n")
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    arguments = ["--python", str(environment / "bin" / "python"), "--constraint", str(constraint)]
    assert torch_build.main([*arguments, "--torch", "cpu"]) == 1
    assert "Could not install uv" in capfd.readouterr().err
    assert not list(environment.glob("lib/python*/site-packages/torch*"))
