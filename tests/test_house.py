"""Guards of the house: rooms, links, names and what a new user is told."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from windrow.resources.configuration.settings import Settings

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "assets", "resources", "engine", "environments", "networks", "kernels")
FILES = ("dagster.yaml", "workspace.yaml", ".env.example", "fleet.example.yaml")


@pytest.mark.parametrize("name", [*ROOMS, *FILES])
def test_a_room_or_file_is_a_link_into_the_package(name: str) -> None:
    link = ROOT / "src" / "windrow" / name
    assert link.is_symlink()
    assert link.readlink() == Path("../..") / name
    assert link.resolve() == ROOT / name


def test_the_package_holds_nothing_but_links() -> None:
    entries = {path.name for path in (ROOT / "src" / "windrow").iterdir()} - {"__pycache__"}
    assert entries == {*ROOMS, *FILES, "__init__.py", "py.typed"}


def test_the_name_kernels_is_never_ours() -> None:
    """It is a Hugging Face package that transformers uses where it is installed."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    program = (
        "import importlib.util; s = importlib.util.find_spec('kernels'); print(s and s.origin)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    # Without __init__.py the folder is a namespace at most, and any real package wins over it.
    assert found == "None" or "site-packages" in found


def test_the_import_rule_catches_an_upward_import(tmp_path: Path) -> None:
    package = tmp_path / "src" / "windrow"
    for room in ROOMS:
        (package / room).mkdir(parents=True)
        if room != "kernels":
            (package / room / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "kernels" / "sketch.py").write_text("from windrow.networks import rules\n")
    (package / "networks" / "rules.py").write_text("from windrow.kernels import sketch\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [linter, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "windrow.kernels.sketch -> windrow.networks.rules" in ended.stdout


def test_env_example_lists_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    shown = dict(line[2:].split("=", 1) for line in lines if line.startswith("# WINDROW_"))
    defaults = {row.name: row.value for row in Settings.read({}).describe()}
    assert {row.name: row.value for row in Settings.read(shown).describe()} == defaults
    assert shown.keys() == defaults.keys()


def test_imports_say_windrow() -> None:
    """The root is on the path of many processes: a bare room would be a second copy."""
    bare = re.compile(rf"^\s*(from|import) ({'|'.join(ROOMS)})\b", re.MULTILINE)
    for room in (*ROOMS, "tests", "benchmarks"):
        for path in (ROOT / room).rglob("*.py"):
            assert not bare.search(path.read_text(encoding="utf-8")), path


def test_the_root_package_is_the_links_target() -> None:
    spec = importlib.util.find_spec("windrow.engine.mining.loop")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / "engine" / "mining" / "loop.py"
