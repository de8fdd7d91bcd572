"""`windrow lake`: whether every file of the lake can be read, and putting right what cannot."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from windrow.pipelines.commands.printing import cell
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse import healing
from windrow.resources.warehouse.lake import Lake

app = typer.Typer(no_args_is_help=True, help="Check and repair the lake, where every result is.")
out = Console()


@app.callback()
def lake() -> None:
    """Check and repair the lake, where every result is."""


@app.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="rebuild what is derived, move damaged files away")
    ] = False,
) -> None:
    """Read every file of the lake: can it be read, and is it where it belongs?

    Exit status 1 where something is wrong and was not repaired.
    """
    found = Lake(Settings.read().lake)
    problems = healing.repair(found.root) if repair else healing.check(found.root)
    if repair:
        found.keep_findings(problems)
    if not problems:
        out.print(f"Every file of {found.root} can be read.", soft_wrap=True, markup=False)
        return
    table = Table("file", "what is wrong", "rebuilt" if repair else "repair", title="lake")
    for problem in problems:
        table.add_row(
            cell(problem.path, 200),
            cell(problem.reason, 300),
            "rebuild" if problem.derived else f"move to {healing.QUARANTINE}/",
        )
    out.print(table)
    for problem in problems:
        if problem.remedy:
            out.print("make again: ", cell(problem.remedy, 400), soft_wrap=True)
    if not repair:
        out.print("windrow lake check --repair puts this right.")
        raise typer.Exit(1)
