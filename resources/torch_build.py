"""Choose and install the build of PyTorch that fits a machine: for CUDA, or for the CPU alone.

The Makefile runs this file before Windrow is installed, so it imports the standard library only:

    python resources/torch_build.py --python ENVIRONMENT/bin/python --constraint FILE

On Linux, pip takes the CUDA build and some 25 packages with it, gigabytes, whether or not there is
a GPU. So a machine without NVIDIA's driver gets the CPU build. Where pip's own candidate is that
build already (macOS; a mirror or a local file of 2.13.0+cpu), pip installs it. Elsewhere uv does:
it knows where PyTorch publishes its builds.

The candidate is known by its version alone. A dry run of pip would name its packages too, and
download all of them where an index publishes no metadata.
"""

import argparse
import ctypes
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

CHOICES = ("auto", "cpu", "cuda", "pip")
WITHOUT_DRIVER = "cu130"
"""uv's name of the CUDA release to take where no driver tells which one fits."""


ADVICE = (
    "To install PyTorch in another way, set TORCH to the address of an index that has the build, "
    "or set TORCH=pip to install the build that pip finds here: on Linux that may be gigabytes of "
    "CUDA libraries."
)


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
    is there. offers_cuda: tells whether pip's own candidate is a CUDA build; it asks a package
    index, so it is called only where the answer matters. Raises NoBuild.
    """
    if "://" in wanted:
        return Choice("any", f"TORCH names an index: {urlsplit(wanted).hostname}", index=wanted)
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
    if not cuda:
        return Choice("cpu", reason, backend="cpu")
    return Choice("cuda", reason, backend="auto" if driver() else WITHOUT_DRIVER)


def has_nvidia_driver() -> bool:
    """Return whether this machine has NVIDIA's driver."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def offers_cuda(python: Path, requirement: str) -> bool:
    """Return whether pip, as configured here, would install a CUDA build.

    requirement: `torch==VERSION`. Downloads no package. Raises NoBuild.
    """
    versions = [str(python), "-I", "-m", "pip", "index", "versions", "torch"]
    listed = _run([*versions, "--disable-pip-version-check"], f"find {requirement}")
    label = candidate_label(listed, requirement.partition("==")[2])
    if label is None:
        raise NoBuild(
            f"{requirement} is not among the versions that pip finds for {python}. Use another "
            "version of Python, or configure pip with an index that has it."
        )
    return label.startswith("cu") or (not label and sys.platform == "linux")


def candidate_label(listed: str, version: str) -> str | None:
    """Return the local label of the build of a version that pip prefers, such as `cpu` or `cu130`.

    listed: what `pip index versions` printed, newest first. The text is empty for a build without
    a label, and None where the version is missing.
    """
    found = re.search(r"^Available versions:(.*)$", listed, re.MULTILINE)
    for each in found[1].split(",") if found else ():
        public, _, label = each.strip().partition("+")
        if public == version:
            return label
    return None


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
            "could not be used. Nothing was installed in its place."
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
        requirement = pinned(given.constraint)
        choice = choose(
            given.torch,
            driver=has_nvidia_driver,
            offers_cuda=lambda: offers_cuda(given.python, requirement),
        )
        name = {"cpu": "CPU build", "cuda": "CUDA build", "any": "build"}[choice.build]
        print(f"PyTorch: {name} ({choice.reason}); set TORCH to choose another", flush=True)
        install(choice, given.python, requirement, given.constraint)
    except NoBuild as error:
        print(f"{error}\n{ADVICE}", file=sys.stderr)
        return 1
    return 0


def pinned(constraint: Path) -> str:
    """Return the line of a constraint file that pins PyTorch. Raises NoBuild."""
    try:
        lines = constraint.read_text().splitlines()
    except OSError as error:
        raise NoBuild(f"{constraint}: {error.strerror}.") from error
    for line in lines:
        if line.startswith("torch=="):
            return line.strip()
    raise NoBuild(f"{constraint} has no line torch==VERSION.")


if __name__ == "__main__":
    sys.exit(main())
