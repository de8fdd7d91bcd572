"""`windrow lake`: check that every file of the lake can be read, and repair the lake."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from windrow.pipelines.commands.printing import cell
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse import healing
from windrow.resources.warehouse.healing import Action
from windrow.resources.warehouse.lake import Lake

app = typer.Typer(no_args_is_help=True, help="Check and repair the lake, which holds every result.")
out = Console()

ACTIONS = {
    Action.REBUILD: "rebuild from the other files",
    Action.REMOVE: "delete",
    Action.QUARANTINE: f"move to {healing.QUARANTINE}/",
    Action.KEEP: "keep; install the release that wrote it",
}


@app.callback()
def lake() -> None:
    """Check and repair the lake, which holds every result."""


@app.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="rebuild derived files, move damaged files away")
    ] = False,
) -> None:
    """Read every file of the lake and report the faults.

    Exit status 1 if a fault is left.
    """
    checked = Lake(Settings.read().lake)
    found = healing.repair(checked.root) if repair else healing.check(checked.root)
    if not found:
        out.print(f"Every file of {checked.root} can be read.", soft_wrap=True, markup=False)
        return
    table = Table("file", "fault", "repaired" if repair else "repair", title="lake")
    for damage in found:
        table.add_row(cell(damage.path, 200), cell(damage.reason, 300), ACTIONS[damage.action])
    out.print(table)
    if repair:
        checked.record_losses(found)
        for remedy in dict.fromkeys(damage.remedy for damage in found if damage.remedy):
            out.print("To make lost rows again: ", cell(remedy, 400), soft_wrap=True)
    else:
        out.print("To repair: windrow lake check --repair")
    if not repair or any(damage.action is Action.KEEP for damage in found):
        raise typer.Exit(1)
