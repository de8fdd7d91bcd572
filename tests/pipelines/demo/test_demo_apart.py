"""The demo is an installation of its own: it answers for nothing of the operator's."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.pipelines.demonstrated import Demonstrated
from windrow.pipelines.commands.folder import FILES
from windrow.resources.configuration.settings import is_setting

COMMAND = f"{sys.executable} -m windrow.pipelines.cli"


def shell(folder: Path, *lines: str) -> str:
    """What a shell of the operator prints in a folder."""
    clean = {n: v for n, v in os.environ.items() if not is_setting(n) and n != "DAGSTER_HOME"}
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)],
        cwd=folder,
        env=clean | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_is_in_its_own_folder(demonstrated: Demonstrated) -> None:
    folder = demonstrated.settings.home.parent
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert {".env", ".windrow", "dagster.yaml", "fleet.yaml", "workspace.yaml"} <= {
        path.name for path in folder.iterdir()
    }
    assert (folder / ".windrow" / "dagster").is_dir()


def test_it_never_answers_for_nodes_and_windows_of_the_operator(
    demonstrated: Demonstrated,
) -> None:
    folder = demonstrated.settings.home.parent
    own = folder.parent
    try:
        said = shell(
            own,
            f"{COMMAND} init > /dev/null",
            f"{COMMAND} node add here --transport local --network gonka > /dev/null",
            f"{COMMAND} node list",
            f"{COMMAND} status",
            f"{COMMAND} sql 'SELECT count(*) AS rows_of_nodes FROM node_checks' --csv",
        )
        assert re.search(r"here +new", said), said
        assert "verified" not in said
        assert "max_groups" not in said
        assert said.splitlines()[-1] == "0"
        known = "import dagster as dg; i = dg.DagsterInstance.get(); "
        known += "print(i.get_runs_count(), i.get_dynamic_partitions('nodes'))"
        counted = shell(own, f'DAGSTER_HOME=$PWD {sys.executable} -c "{known}"')
        assert counted.strip() == "0 []"
    finally:
        for name in (*FILES, ".fleet.yaml.lock"):
            (own / name).unlink(missing_ok=True)
        subprocess.run(["rm", "-rf", str(own / ".windrow")], check=True)


def test_its_last_words_can_be_pasted(demonstrated: Demonstrated, tmp_path: Path) -> None:
    printed = demonstrated.printed.partition("Type next:\n")[2]
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    way, commands = [], []
    for line in lines:
        (commands if line.startswith("windrow ") else way).append(line)
    assert any(line.startswith("cd ") for line in way)
    named = {command.split()[1] for command in commands}
    assert named == {"ui", "status", "node", "explain", "verify", "doctor", "sql"}
    pasted = [c for c in commands if c.split()[1] in ("status", "node", "explain", "sql")]
    said = shell(tmp_path, *way, *pasted)
    assert re.search(r"here +unproven", said), said  # a processor answered in a card's place
    assert str(demonstrated.window) in said
    assert list(tmp_path.iterdir()) == []
