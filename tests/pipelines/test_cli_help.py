"""`windrow` explains itself: version, `-h` everywhere, completion, and advice that exists."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from tests.pipelines.conftest import ROOT
from windrow.pipelines.cli import app

ROOMS = ("pipelines", "assets", "resources", "engine", "environments", "networks", "kernels")
SHOWN = ("dagster.yaml", "workspace.yaml", ".env.example", "fleet.example.yaml")
"""Files of the package that an operator reads."""
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


COMMANDS = [*commands(typer.main.get_command(app))]


def command_of(path: tuple[str, ...]) -> click.Command:
    found = typer.main.get_command(app)
    for name in path:
        found = found.commands[name]  # type: ignore[attr-defined]
    return found


def windrow(*arguments: str, **variables: str) -> str:
    """What the command prints, started by a shell."""
    script = str(Path(sys.executable).with_name("windrow"))
    done = subprocess.run(
        [script, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_version() -> None:
    assert windrow("--version") == f"windrow {version('windrow')}\n"


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != ("dagster",)], ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(path: tuple[str, ...], option: str) -> None:
    shown = CliRunner().invoke(app, [*path, option], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "Usage:" in shown.output
    assert command_of(path).help


def test_dagsters_own_help() -> None:
    assert "Commands for working with Dagster jobs" in windrow("dagster", "-h")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown(shell: str) -> None:
    shown = windrow("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_WINDROW_COMPLETE" in shown


def test_completion_is_installed_and_completes(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").touch()
    windrow(
        "--install-completion",
        "bash",
        HOME=str(tmp_path),
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    program = (
        f"source {tmp_path}/.bashrc; COMP_WORDS=(windrow node ver); COMP_CWORD=2; "
        "$(complete -p windrow | sed -E 's/.*-F ([^ ]+) .*/\\1/') windrow ver node; "
        'echo "${COMPREPLY[@]}"'
    )
    scripts = str(Path(sys.executable).parent)
    shown = subprocess.run(
        ["bash", "-c", program],
        env=os.environ | {"HOME": str(tmp_path), "PATH": f"{scripts}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["verify"]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def texts(path: Path) -> Iterator[str]:
    """Texts of a module: its constants and docstrings, f-strings with … for what they insert."""
    tree = parsed(path)
    inside = {
        part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


def packaged_texts() -> Iterator[tuple[str, str]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for text in texts(path):
                yield str(path.relative_to(ROOT)), text
        for path in sorted((ROOT / room).rglob("*.sql")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for name in SHOWN:
        yield name, (ROOT / name).read_text(encoding="utf-8")


PACKAGED = list(packaged_texts())
# A word of a sentence may follow the name; a command's own words and options are held to what is.
ADVICE = re.compile(r"(?<![\w./\[-])windrow ((?:[a-z][a-z-]*|--?[a-z-]+)(?: [^\s`;|&()#]+)*)")
PROSE = {"full", "development", "calibration", "for", "is"}
"""Words after "windrow" in names that are hashed or stored, and in sentences."""


def advised(text: str) -> Iterator[list[str]]:
    """The words of each `windrow …` in a text."""
    for match in ADVICE.finditer(re.sub(r"\\\n\s*", "", text)):
        words = match[1].split()
        if words[0] not in PROSE:
            yield words


def fault_of(words: list[str]) -> str:
    """What is wrong with the words of a command, or nothing."""
    path: tuple[str, ...] = ()
    while words and (*path, words[0].rstrip(".,:")) in COMMANDS:
        path = (*path, words.pop(0).rstrip(".,:"))
    command = command_of(path)
    if getattr(command, "commands", None) and words and not words[0].startswith("-"):
        return f"no command {' '.join(['windrow', *path, words[0]])}"
    if path == ("dagster",):
        return ""
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    known |= {"-h", "--help"}
    options = [word.rstrip(".,:") for word in words if re.match(r"--?[a-z]", word)]
    return ", ".join(
        f"no option {option} of windrow {' '.join(path)}" for option in options
        if option.split("=")[0] not in known
    )  # fmt: skip


def test_the_scan_sees_what_does_not_exist() -> None:
    for wrong in ("windrow verfy X", "try `windrow doctor --fix`", "…: windrow node ad --port 3"):
        assert any(fault_of(words) for words in advised(wrong)), wrong
    for right in ("windrow node verify …", "`windrow sql --list`, or", "Windrow makes it"):
        assert not any(fault_of(words) for words in advised(right)), right


@pytest.mark.parametrize("where", ["package", *[page.name for page in PAGES]])
def test_commands_that_are_named_exist(where: str) -> None:
    found = PACKAGED if where == "package" else [
        (page.name, page.read_text(encoding="utf-8")) for page in PAGES if page.name == where
    ]  # fmt: skip
    faults = [
        f"{path}: {fault}"
        for path, text in found
        for words in advised(text)
        if (fault := fault_of(words))
    ]
    assert faults == []
    assert where != "package" or sum(bool([*advised(text)]) for _, text in found) > 20


def test_the_package_names_nothing_that_only_the_repository_has() -> None:
    """A wheel has no Makefile, no docs, no tests, and `windrow` itself is on no index."""
    targets = "|".join(sorted(TARGETS))
    absent = re.compile(
        rf"`make [a-z-]+`|(?:^|[\n:;] *)make (?:{targets})\b|\.venv/|windrow\[|"
        r"\bfleet\.example\.yaml|\.env\.example|constraints\.txt|export DAGSTER_HOME"
    )
    # The package's own files, and the maker of a page of the documentation.
    sources = {"pipelines/commands/folder.py", "pipelines/commands/data_page.py"}
    found = [
        f"{path}: {match[0]!r}"
        for path, text in PACKAGED
        if path not in sources and (match := absent.search(text))
    ]
    assert found == []


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node, clean=False) or ""


def test_errors_and_descriptions_name_no_page_of_the_repository() -> None:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "docs/" not in path.read_text(encoding="utf-8"):
                continue
            own = {*docstrings(parsed(path))}
            # Docstrings of assets and commands are shown to operators, those of others are not.
            shown = [t for t in texts(path) if t not in own or room in ("assets", "pipelines")]
            if path.name not in ("data_page.py", "retention.py"):
                assert not [text for text in shown if "docs/" in text], path


def test_targets_that_are_named_exist() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, re.MULTILINE)
        assert {a or b for a, b in named} <= TARGETS, page
