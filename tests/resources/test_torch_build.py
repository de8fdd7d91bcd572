"""Which build of PyTorch a machine gets: what its driver, pip's candidate and TORCH decide."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from windrow.resources import torch_build
from windrow.resources.torch_build import (
    WITHOUT_DRIVER,
    NoBuild,
    candidate_label,
    choose,
    offers_cuda,
)

TORCH = "torch==2.13.0"
ON_LINUX = sys.platform == "linux"


def make_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """An empty package as pip finds it in a folder."""
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
    ("versions", "cuda"),
    [
        (["2.13.0"], ON_LINUX),  # on Linux, the build without a label is for CUDA
        (["2.13.0", "2.13.0+cpu"], False),
        (["2.12.0+cpu", "2.13.0", "2.14.0+cpu"], ON_LINUX),
        (["2.13.0+cpu", "2.13.0+cu130"], True),
    ],
)
def test_the_candidate_of_pip_is_known_by_its_version(
    index: Path, versions: list[str], cuda: bool
) -> None:
    for version in versions:
        make_wheel(index, "torch", version)
    assert offers_cuda(Path(sys.executable), TORCH) is cuda


def test_the_candidate_that_is_named_is_the_one_that_pip_takes(index: Path, tmp_path: Path) -> None:
    for version in ("2.13.0", "2.13.0+cpu", "2.13.0+cu130"):
        make_wheel(index, "torch", version)
    pip = [sys.executable, "-I", "-m", "pip"]
    listed = subprocess.run([*pip, "index", "versions", "torch"], capture_output=True, text=True)
    subprocess.run([*pip, "install", "-q", "--target", tmp_path / "to", TORCH], check=True)
    (taken,) = (tmp_path / "to").glob("torch-*.dist-info")
    label = candidate_label(listed.stdout, "2.13.0")
    assert taken.name == f"torch-2.13.0+{label}.dist-info"


def test_what_pip_prints_is_read() -> None:
    """As recorded on a machine whose pip also looks into a folder with a CPU build."""
    listed = (
        "torch (2.15.0)\n"
        "Available versions: 2.15.0, 2.14.1, 2.14.0, 2.13.0+cpu, 2.13.0, 2.12.1, 2.12.0, 2.11.0\n"
        "  INSTALLED: 2.13.0+cpu\n"
        "  LATEST:    2.15.0\n"
    )
    labels = {"2.13.0": "cpu", "2.14.1": "", "2.15.0": "", "2.13": None, "3.0": None}
    assert {version: candidate_label(listed, version) for version in labels} == labels
    assert candidate_label("", "2.13.0") is None


def test_an_index_without_pytorch_is_named(index: Path) -> None:
    with pytest.raises(NoBuild, match="torch==") as refused:
        offers_cuda(Path(sys.executable), TORCH)
    assert "No matching distribution" in str(refused.value)
    make_wheel(index, "torch", "2.12.0")
    with pytest.raises(NoBuild, match=f"{TORCH} is not among the versions"):
        offers_cuda(Path(sys.executable), TORCH)


@pytest.mark.parametrize(
    ("wanted", "driver", "cuda", "build", "backend"),
    [
        ("auto", False, True, "cpu", "cpu"),  # Linux without a GPU
        ("auto", False, False, "cpu", None),  # macOS, or a mirror that has the CPU build
        ("auto", True, True, "cuda", None),
        ("auto", True, False, "cuda", "auto"),
        ("cpu", True, True, "cpu", "cpu"),
        ("cpu", True, False, "cpu", None),
        ("cuda", True, False, "cuda", "auto"),
        ("cuda", False, False, "cuda", WITHOUT_DRIVER),
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
    named = choose("https://me:hunter2@mirror.example/cpu", driver=never, offers_cuda=never)
    assert "hunter2" not in named.reason


@pytest.mark.parametrize("wanted", ["", "gpu", "CPU", "cpu "])
def test_another_word_is_refused(wanted: str) -> None:
    with pytest.raises(NoBuild, match="auto, cpu, cuda, pip"):
        choose(wanted, driver=never, offers_cuda=never)


@pytest.fixture
def environment(index: Path, tmp_path: Path) -> Path:
    """A new environment that has nothing but pip."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


def run(
    environment: Path, build: str, constraint: str = TORCH
) -> "subprocess.CompletedProcess[str]":
    """What the Makefile runs."""
    pins = environment.with_name("constraints.txt")
    pins.write_text(f"numpy==2.4.6\n{constraint}\ntorchvision==0.28.0\n")
    python = environment / "bin" / "python"
    command = [python, torch_build.__file__, "--python", python, "--constraint", pins]
    return subprocess.run([*command, "--torch", build], capture_output=True, text=True)


def installed(environment: Path) -> list[str]:
    return [path.name for path in environment.glob("lib/python*/site-packages/torch*")]


def test_it_runs_without_windrow_and_says_what_it_chose(index: Path, environment: Path) -> None:
    make_wheel(index, "torch", "2.13.0")
    make_wheel(index, "torch", "2.13.0+cpu")
    done = run(environment, "cpu")
    assert done.returncode == 0, done.stderr
    assert "PyTorch: CPU build (TORCH=cpu)" in done.stdout
    assert installed(environment) == ["torch-2.13.0+cpu.dist-info"]


@pytest.mark.skipif(not ON_LINUX, reason="only on Linux does pip take the CUDA build")
def test_without_the_cpu_build_nothing_is_installed_in_its_place(
    index: Path, environment: Path
) -> None:
    make_wheel(index, "torch", "2.13.0", "nvidia-cublas")
    make_wheel(index, "nvidia-cublas", "1.0")
    done = run(environment, "cpu")
    assert done.returncode == 1
    assert "Could not install uv" in done.stderr
    assert "TORCH=pip" in done.stderr
    assert "Traceback" not in done.stderr
    assert installed(environment) == []


@pytest.mark.parametrize("constraint", ["torch>=2", "# nothing"])
def test_a_file_without_the_pin_is_named(environment: Path, constraint: str) -> None:
    done = run(environment, "auto", constraint)
    assert done.returncode == 1
    assert "has no line torch==VERSION" in done.stderr
