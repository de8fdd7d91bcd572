"""Which Python runs programs, and what happens where the network's is not installed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windrow.environments.environment import load_environment
from windrow.environments.errors import ProgramPythonUnavailable, SandboxUnavailable
from windrow.environments.sandbox import Sandbox, interpreter
from windrow.environments.sandbox.interpreter import Interpreter
from windrow.environments.sources import ShippedTasks

from .pythons import EVERY_PYTHON

FOREIGN = Interpreter(Path("/opt/python3.13"), Path("/opt"), (3, 13, 0))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine with no Python but the one that runs the tests: a home and a folder on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    clear()
    yield tmp_path
    clear()


def clear() -> None:
    interpreter.find.cache_clear()
    interpreter.ask.cache_clear()


def install(path: Path, said: str) -> Path:
    """An executable that answers as an interpreter would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{said}\n")
    path.chmod(0o755)
    return path


def claims(path: Path, version: str, implementation: str = "cpython") -> Path:
    numbers = [int(number) for number in version.split(".")]
    said = json.dumps([implementation, numbers, str(path), f"/opt/{version}"])
    return install(path, f"echo '{said}'")


def test_windrows_own_python_is_asked_and_known() -> None:
    own = interpreter.own()
    assert own.version == sys.version_info[:3]
    assert str(own) == ".".join(map(str, sys.version_info[:3]))
    assert own.executable == own.executable.resolve()
    assert own.prefix == Path(sys.base_prefix)


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="3.12 runs Windrow itself here")
@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["bin/python3.12", ".pyenv/versions/3.12.9/bin/python3.12"], "bin/python3.12"),
        (
            [f".pyenv/versions/3.12.{n}/bin/python3.12" for n in (4, 11, 9)],
            ".pyenv/versions/3.12.11/bin/python3.12",
        ),
        (
            [f".local/share/uv/python/cpython-3.12.{n}-linux-gnu/bin/python3.12" for n in (8, 12)],
            ".local/share/uv/python/cpython-3.12.12-linux-gnu/bin/python3.12",
        ),
        (["bin/python3.13", ".pyenv/versions/3.12.1/bin/python3.12"], ".pyenv/versions/3.12.1"),
        (["bin/python3.13", "bin/python3.14"], "bin/python3.13"),
    ],
    ids=["PATH first", "newest of pyenv", "newest of uv", "the network's first", "later ones"],
)
def test_the_search_prefers_the_networks_version(
    bare: Path, places: list[str], expected: str
) -> None:
    for place in places:
        path = bare / place
        minor = path.name.removeprefix("python3.")
        claims(path, f"3.{minor}.1")
    assert str(interpreter.find().executable).startswith(str(bare / expected))


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="3.12 runs Windrow itself here")
@pytest.mark.parametrize(
    "said",
    [
        "echo 'pyenv: python3.12: command not found' >&2; exit 127",
        "echo nonsense",
        'echo \'["pypy", [3, 12, 1], "/x", "/x"]\'',
        'echo \'["cpython", [3, 11, 1], "/x", "/x"]\'',
        'echo \'["cpython", [3, 12], "/x", "/x"]\'',
        "echo '{}'",
    ],
)
def test_what_does_not_answer_as_a_cpython_is_not_there(bare: Path, said: str) -> None:
    install(bare / "bin/python3.12", said)
    assert interpreter.find() == interpreter.own()
    claims(bare / ".pyenv/versions/3.12.3/bin/python3.12", "3.12.3")
    interpreter.find.cache_clear()
    assert str(interpreter.find()) == "3.12.3"


@pytest.mark.parametrize("python", EVERY_PYTHON, ids=str)
def test_algebra_splits_texts_as_its_python_does(python: Interpreter) -> None:
    """From 3.12 on a symbol that is no name of Python's is a name of SymPy's."""
    with Sandbox(1, python=python.executable, any_python=True) as sandbox:
        try:
            same = sandbox.algebraically_equal([("√2+1", "1+√2"), ("x+1", "1+x"), ("½", "½+y")])
        except SandboxUnavailable as error:
            pytest.skip(str(error))
    assert same == [python.version >= (3, 12), True, False]


def test_a_named_python_is_used_or_refused_by_name(bare: Path) -> None:
    assert str(interpreter.find(claims(bare / "mine", "3.13.2"))) == "3.13.2"
    for path in (bare / "nowhere", claims(bare / "old", "3.9.1"), install(bare / "no", "exit 1")):
        with pytest.raises(ProgramPythonUnavailable, match=f"WINDROW_PROGRAM_PYTHON names {path}"):
            interpreter.find(path)


def test_another_version_is_refused_unless_any_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "find", lambda named: FOREIGN)
    refused = Sandbox(1)
    arguments = None, "instructed", None, ShippedTasks()
    for ask in (
        refused.check,
        lambda: refused.run_tests(["x = 1"], ["assert x"]),
        *(
            lambda env=env: load_environment(env, *arguments, refused)  # type: ignore[misc]
            for env in ("mbpp", "python_code", "humaneval")
        ),
    ):
        with pytest.raises(ProgramPythonUnavailable) as refusal:
            ask()
        for part in ("3.12", "3.13.0", "/opt/python3.13", "uv python install 3.12",
                     "WINDROW_PROGRAM_PYTHON", "WINDROW_ANY_PROGRAM_PYTHON=yes"):  # fmt: skip
            assert part in str(refusal.value)
    assert Sandbox(1, any_python=True).python == FOREIGN
    for env, python in (("gsm8k", interpreter.own()), ("math", FOREIGN)):
        assert load_environment(env, *arguments, refused).python == str(python)
    with pytest.raises(ProgramPythonUnavailable):
        refused.algebraically_equal([("x+1", "1+x")])
