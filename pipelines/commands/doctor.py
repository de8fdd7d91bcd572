"""`windrow doctor`: what is configured, what is missing, and what to do about it."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from windrow.pipelines.commands.doctor_findings import Finding, State
from windrow.pipelines.commands.doctor_machine import MACHINE
from windrow.pipelines.commands.doctor_network import NETWORK
from windrow.pipelines.commands.printing import cell
from windrow.resources.configuration.settings import Settings

MARKS = {
    State.FINE: "[green]✓[/]",
    State.DOUBTFUL: "[yellow]![/]",
    State.MISSING: "[red]✗[/]",
}


def report(out: Console) -> bool:
    """Print settings and findings; True when nothing is missing.

    Raises SettingError when the settings cannot even be read.
    """
    settings = Settings.read()
    _print_settings(out, settings)
    found = examine(settings)
    _print(out, found)
    return all(finding.state is not State.MISSING for finding in found)


def repair(out: Console) -> None:
    """Repair the databases of the Dagster instance and print which ones. Raises BrokenInstance."""
    from windrow.resources.instance_storage import BACKUP, sqlite_folder
    from windrow.resources.instance_storage import repair as repair_databases

    folder = sqlite_folder(Path(os.environ.get("DAGSTER_HOME") or Path.cwd()))
    repaired = repair_databases(folder.path) if folder else []
    for file in repaired:
        said = f"repaired {file.path}; a copy from before is {file.path.name}{BACKUP}"
        out.print(said, highlight=False, soft_wrap=True)
    if not repaired:
        out.print("no database of Dagster needs a repair")


def examine(settings: Settings) -> list[Finding]:
    """Every look at machine and network, side by side: those that wait for others cost no sum."""
    looks = [*MACHINE, *NETWORK]
    with ThreadPoolExecutor(len(looks)) as pool:
        return [
            finding for found in pool.map(lambda look: look(settings), looks) for finding in found
        ]


def _print_settings(out: Console, settings: Settings) -> None:
    table = Table(title="settings (environment variables and .env)", title_justify="left")
    for name in ("variable", "value", "from", "meaning"):
        table.add_column(name, overflow="fold")
    for row in settings.describe():
        table.add_row(
            row.name, row.value, row.source, row.meaning, style=None if row.used else "yellow"
        )
    out.print(table)


def _print(out: Console, found: Iterable[Finding]) -> None:
    table = Table(title="this machine and its network", title_justify="left")
    for name in ("", "part", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in found:
        # What is found may be a stranger's words.
        table.add_row(
            MARKS[finding.state],
            finding.about,
            cell(finding.found, most=1000),
            cell(finding.todo, most=1000),
        )
    out.print(table)
