"""The Python that runs programs and algebra: where it is on this machine, and its version.

Programs give other results under another minor version, and SymPy reads some texts in another way,
so the version is one of the network's rules (grail-protocol, corrections to §12.6). The interpreter
need not be Windrow's own, and needs nothing but its standard library.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from windrow.environments.errors import ProgramPythonUnavailable

NETWORK_VERSION = (3, 12)
"""The oldest Python that the network's package accepts, and the one its verdicts were measured on.
"""

LATER_VERSIONS = ((3, 13), (3, 14))
OLDEST_VERSION = (3, 11)
ASK_SECONDS = 20.0
COMPILE_SECONDS = 120.0

PROBE = """
import json, os, sys
name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
base = os.path.join(sys.base_prefix, "bin", name)
executable = os.path.realpath(base if os.path.exists(base) else sys.executable)
said = sys.implementation.name, sys.version_info[:3], executable, sys.base_prefix
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Interpreter:
    """One CPython installation.

    executable: the file itself, no link, shim or virtual environment. prefix: the folder of its
    `lib`. version: major, minor, micro.
    """

    executable: Path
    prefix: Path
    version: tuple[int, int, int]

    @property
    def is_the_networks(self) -> bool:
        """Whether its minor version is the network's."""
        return self.version[:2] == NETWORK_VERSION

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


@cache
def find(named: Path | None = None) -> Interpreter:
    """Return the interpreter to run programs with.

    named: an executable, or None to search. The search prefers the network's version, then later
    ones, then Windrow's own, and looks at Windrow's own interpreter, on PATH, and at what pyenv
    and uv installed. Raises ProgramPythonUnavailable for a named one that cannot be used.
    """
    if named is not None:
        found = ask(named)
        if found is None or found.version < OLDEST_VERSION:
            raise ProgramPythonUnavailable(
                f"WINDROW_PROGRAM_PYTHON names {named}, which "
                + (f"is Python {found}" if found else "does not start as a CPython interpreter")
                + f"; name the executable of Python {_text(NETWORK_VERSION)}, or remove the setting"
            )
        return found
    for version in (NETWORK_VERSION, *LATER_VERSIONS):
        if sys.version_info[:2] == version:
            return own()
        for path in installed(version):
            found = ask(path)
            if found is not None and found.version[:2] == version:
                return found
    return own()


@cache
def own() -> Interpreter:
    """Return the interpreter that runs Windrow itself. Raises ProgramPythonUnavailable."""
    found = ask(Path(sys.executable))
    if found is None:
        raise ProgramPythonUnavailable(
            f"{sys.executable}, which runs Windrow, does not start as a CPython interpreter; "
            "install Windrow under CPython"
        )
    return found


def check_version(interpreter: Interpreter) -> None:
    """Raise ProgramPythonUnavailable unless its minor version is the network's."""
    if interpreter.is_the_networks:
        return
    wanted = _text(NETWORK_VERSION)
    raise ProgramPythonUnavailable(
        f"programs and algebra must run under Python {wanted}, as on the network; the best match "
        f"on this machine is Python {interpreter} ({interpreter.executable}), which gives other "
        f"results for some. Install Python {wanted} (uv python install {wanted}, or pyenv install "
        f"{wanted}), or name one in WINDROW_PROGRAM_PYTHON. To accept wrong rewards, set "
        "WINDROW_ANY_PROGRAM_PYTHON=yes"
    )


def installed(version: tuple[int, int]) -> Iterator[Path]:
    """Yield executables that may be of a version, best first: PATH, then pyenv, then uv.

    What is on PATH may be a shim that does not start; ask it.
    """
    name = f"python{_text(version)}"
    folders = map(Path, os.environ.get("PATH", "").split(os.pathsep))
    yield from _runnable([folder / name for folder in folders if folder.is_absolute()])
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from _runnable(_newest_first(pyenv / "versions", f"{_text(version)}.*", name))
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
    yield from _runnable(_newest_first(uv, f"cpython-{_text(version)}.*", name))


@cache
def ask(path: Path) -> Interpreter | None:
    """Return what an executable says of itself, or None where it is no CPython that starts."""
    try:
        said = subprocess.run(
            [path, "-I", "-S", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS,
            check=True,
        ).stdout
        implementation, version, executable, prefix = json.loads(said)
        major, minor, micro = map(int, version)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None
    if implementation != "cpython":
        return None
    return Interpreter(Path(executable), Path(prefix), (major, minor, micro))


def compile_packages(python: Interpreter, names: Sequence[str]) -> None:
    """Have another Python than Windrow's import packages once, so that it keeps their byte code.

    It goes beside the byte code of Windrow's own Python. Without it a worker starts all the same,
    some seconds later: a folder that cannot be written to is no error.
    """
    for name in names:
        found = find_spec(name)
        if python.version[:2] == sys.version_info[:2] or found is None or found.origin is None:
            continue
        package = Path(found.origin).parent
        major, minor, _ = python.version
        if not (package / "__pycache__" / f"__init__.cpython-{major}{minor}.pyc").exists():
            code = f"import sys; sys.path.append({str(package.parent)!r}); import {name}"
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    [python.executable, "-I", "-S", "-c", code],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=COMPILE_SECONDS,
                    check=False,
                )


def _newest_first(folder: Path, pattern: str, name: str) -> list[Path]:
    """`bin/<name>` of every installation below a folder, by the numbers in its name."""
    found = folder.glob(f"{pattern}/bin/{name}")
    return sorted(found, key=lambda path: _numbers(path.parents[1].name), reverse=True)


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]+", name)]


def _runnable(paths: list[Path]) -> Iterator[Path]:
    return (path for path in paths if path.is_file() and os.access(path, os.X_OK))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
