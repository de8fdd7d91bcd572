"""Choose and install the build of PyTorch that fits a machine: for CUDA, or for the CPU alone.

The Makefile runs this file before Windrow is installed, so it imports the standard library only:

    python resources/torch_build.py --python PYTHON --constraint FILE

On Linux, pip takes the CUDA build and some 25 packages with it, gigabytes, whether or not there is
a GPU. So a machine without NVIDIA's driver gets the CPU build. Where pip's own candidate is that
build already (macOS, a mirror or a local file), pip installs it. Elsewhere uv does: it knows where
PyTorch publishes its builds.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CHOICES = ("auto", "cpu", "cuda", "pip")


class NoBuild(Exception):
    """PyTorch was not installed; the text says why and what to do."""


@dataclass(frozen=True)
class Choice:
    """build: "cpu", "cuda", or "any" where pip or an index decides. reason: one clause.

    backend: the one that uv installs with; None installs with pip. index: address of an index.
    """

    build: str
    reason: str
    backend: str | None = None
    index: str | None = None


def choose(wanted: str, *, driver: Callable[[], bool], offers_cuda: Callable[[], bool]) -> Choice:
    """Return the build to install.

    wanted: one of CHOICES, or the address of a package index. driver: tells whether NVIDIA's driver
    is there. offers_cuda: tells whether pip's own candidate brings CUDA libraries; it asks a
    package index, so it is called only where the answer matters. Raises NoBuild.
    """
    if "://" in wanted:
        return Choice("any", f"TORCH names an index: {wanted}", index=wanted)
    if wanted not in CHOICES:
        raise NoBuild(
            f"TORCH={wanted} is not a choice. Use {', '.join(CHOICES)}, or the address of an index."
        )
    if wanted == "pip":
        return Choice("any", "TORCH=pip takes the build that pip finds")
    if wanted == "auto":
        cuda = driver()
        reason = f"{'an' if cuda else 'no'} NVIDIA driver was found"
    else:
        cuda, reason = wanted == "cuda", f"TORCH={wanted}"
    if cuda == offers_cuda():
        return Choice("cuda" if cuda else "cpu", reason)
    return Choice("cuda" if cuda else "cpu", reason, backend="auto" if cuda else "cpu")


def has_nvidia_driver() -> bool:
    """Return whether this machine has NVIDIA's driver."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def offers_cuda(python: Path, requirement: str, constraint: Path | None = None) -> bool:
    """Return whether pip, as configured here, would install CUDA libraries for a requirement.

    Raises NoBuild.
    """
    dry = [*_pip(python, constraint), "--dry-run", "--ignore-installed", "--report", "-"]
    report = _run([*dry, requirement], f"find {requirement}")
    return brings_cuda(json.loads(report))


def brings_cuda(report: dict[str, list[dict[str, dict[str, str]]]]) -> bool:
    """Return whether the packages of an installation report of pip include CUDA libraries."""
    names = [entry["metadata"]["name"].lower() for entry in report["install"]]
    return any(name.startswith(("nvidia-", "cuda-")) for name in names)


def install(choice: Choice, python: Path, requirement: str, constraint: Path | None = None) -> None:
    """Install the chosen build into the environment of `python`. Raises NoBuild."""
    if choice.backend is None:
        index = [] if choice.index is None else ["--index-url", choice.index]
        _run([*_pip(python, constraint), *index, requirement], f"install {requirement}")
        return
    _run([*_pip(python, constraint), "uv"], "install uv")
    limits = [] if constraint is None else ["--constraint", str(constraint)]
    uv = [str(python.parent / "uv"), "pip", "install", "--quiet", "--python", str(python)]
    backend = ["--torch-backend", choice.backend]
    try:
        _run([*uv, *limits, *backend, requirement], f"install {requirement}")
    except NoBuild as error:
        raise NoBuild(
            f"{error}\nuv takes PyTorch's {choice.build} build from PyTorch's own index, which "
            "could not be used. Set TORCH to the address of an index that has the build, or set "
            "TORCH=pip to install the build that pip finds here: on Linux that may be gigabytes of "
            "CUDA libraries."
        ) from None


def _pip(python: Path, constraint: Path | None) -> list[str]:
    limits = [] if constraint is None else ["--constraint", str(constraint)]
    pip = [str(python), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    return [*pip, *limits]


def _run(command: Sequence[str], what: str) -> str:
    """Return what a command printed. Raises NoBuild with its last lines."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise NoBuild(f"Could not {what}: {command[0]}: {error.strerror}.") from error
    if done.returncode:
        said = "\n".join((done.stderr + done.stdout).strip().splitlines()[-8:])
        raise NoBuild(f"Could not {what} (exit status {done.returncode}):\n{said}".rstrip())
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose, say what was chosen, and install."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="of the environment")
    parser.add_argument("--constraint", type=Path, required=True, help="file of pinned versions")
    parser.add_argument("--torch", default="auto", help=f"{', '.join(CHOICES)}, or an index")
    given = parser.parse_args(arguments)
    try:
        choice = choose(
            given.torch,
            driver=has_nvidia_driver,
            offers_cuda=lambda: offers_cuda(given.python, "torch", given.constraint),
        )
        name = {"cpu": "CPU build", "cuda": "CUDA build", "any": "build"}[choice.build]
        print(f"PyTorch: {name} ({choice.reason}); set TORCH to choose another")
        install(choice, given.python, "torch", given.constraint)
    except NoBuild as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
