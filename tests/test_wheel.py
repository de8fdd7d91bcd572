"""The wheel: it holds the whole package, and works where there is no clone of the repository."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.support.real_sglang import free_port

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "assets", "resources", "engine", "environments", "networks", "kernels")
AT_THE_TOP = ("dagster.yaml", "workspace.yaml", ".env.example", "fleet.example.yaml")
BUILD = "import sys; from setuptools import build_meta as b; print(b.build_wheel(sys.argv[1]))"
LEFT_OUT = ("__pycache__",)
ALONE = ("-S", "-P")
"""Options of Python: no .pth file, so no editable installation; no working folder."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree, built from a copy."""
    copy, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("src", *ROOMS):
        ignored = shutil.ignore_patterns("*.egg-info", *LEFT_OUT)
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", *AT_THE_TOP):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(built)], cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = built.glob("windrow-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is unpacked, as an installer does with a pure one."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def environment(installed: Path) -> dict[str, str]:
    paths = [str(installed), sysconfig.get_paths()["purelib"]]
    kept = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return kept | {"PYTHONPATH": os.pathsep.join(paths)}


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python prints in a folder; the clone is not on its path, whose .pth is not read."""
    done = subprocess.run(
        [sys.executable, *ALONE, *arguments],
        cwd=folder,
        env=environment(installed),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("windrow/")}
    expected = {
        f"windrow/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and not {*path.parts} & {*LEFT_OUT}
    }
    package = ("__init__.py", "py.typed", *AT_THE_TOP)
    assert held == expected | {f"windrow/{name}" for name in package}


def test_it_is_installed_with_its_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "windrow = windrow.pipelines.cli:main" in archive.read(points).decode()


def test_it_makes_an_installation_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    origin = run(installed, tmp_path, "-c", "import windrow; print(windrow.__file__)")
    assert Path(origin.strip()).is_relative_to(installed)
    command = ("-m", "windrow.pipelines.cli")
    assert run(installed, tmp_path, *command, "--version").startswith("windrow ")
    assert "wrote" in run(installed, tmp_path, *command, "init")
    assert {path.name for path in tmp_path.iterdir()} == {
        "dagster.yaml", "workspace.yaml", ".env", "fleet.yaml",
    }  # fmt: skip
    for name, source in {"dagster.yaml": "dagster.yaml", ".env": ".env.example"}.items():
        assert (tmp_path / name).read_bytes() == (ROOT / source).read_bytes()


@pytest.mark.live
def test_its_demo_and_its_ui_run(installed: Path, tmp_path: Path) -> None:
    """All of it, in a minute: windows, verdicts, nodes, then the demo's runs in the UI."""
    command = ("-m", "windrow.pipelines.cli")
    printed = run(installed, tmp_path, *command, "demo", "--windows", "1", "--groups", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["windrow-demo"]
    folder = tmp_path / "windrow-demo"
    assert f"cd {folder.name}" in printed
    port = free_port()
    log = tmp_path / "ui.log"
    with log.open("w") as out:
        ui = subprocess.Popen(
            [sys.executable, *ALONE, *command, "ui", "--port", str(port)],
            cwd=folder,
            env=environment(installed),
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            counted = finished_runs(port, ui)
        finally:
            ui.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                ui.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ui.pid, signal.SIGKILL)
    assert counted >= 6, log.read_text()  # a window mined and validated, three nodes, their page


def finished_runs(port: int, ui: "subprocess.Popen[bytes]", seconds: float = 90.0) -> int:
    """How many runs the UI shows that succeeded, once it answers."""
    query = "{runsOrError(filter:{statuses:[SUCCESS]}){... on Runs{results{id}}}}"
    began = time.monotonic()
    while time.monotonic() - began < seconds and ui.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            address = f"http://127.0.0.1:{port}/graphql"
            answer = httpx.post(address, json={"query": query}, timeout=10.0)
            return len(answer.json()["data"]["runsOrError"]["results"])
        time.sleep(0.3)
    return 0


def test_dagster_loads_its_definitions(installed: Path, tmp_path: Path) -> None:
    program = (
        "from windrow.pipelines.definitions import defs; import sys;"
        "print(len(defs.resolve_all_job_defs()));"
        f"assert not [p for p in sys.path if p.startswith({str(ROOT / 'src')!r})]"
    )
    assert int(run(installed, tmp_path, "-c", program)) > 5
