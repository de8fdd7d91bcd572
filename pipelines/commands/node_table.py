"""`windrow node list`: where every node stands."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from windrow.engine.fleet.inventory import Fleet
from windrow.pipelines.commands.printing import cell
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.inventory_file import FleetFile
from windrow.resources.warehouse.lake import Lake


def show(out: Console) -> None:
    """Print every declared node. Raises InvalidFleet."""
    settings = Settings.read()
    fleet = FleetFile(settings.fleet).load()
    if not fleet.nodes:
        out.print(f"{settings.fleet} declares no nodes; windrow node add declares one")
        return
    print_nodes(out, Lake(settings.lake), fleet, [*fleet.nodes])


def print_nodes(out: Console, lake: Lake, fleet: Fleet, names: Sequence[str]) -> int:
    """Print a line a node; how many of their newest verdicts say no, or attestations nothing."""
    from windrow.assets.fleet.overview import overview

    lines = overview(lake, fleet, names, time.time())
    table = Table(
        title="nodes", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    cards = any(fleet.nodes[name].gpu for name in names)
    for column in ("node", *(["GPUs"] if cards else []), "state"):
        table.add_column(column, overflow="fold", max_width=16)
    table.add_column("since", no_wrap=True)
    for column in ("proofs", "set-up"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold", min_width=16)
    for line in lines:
        table.add_row(
            line.name,
            *([line.gpus] if cards else []),
            cell(line.state),
            _when(line.since),
            line.proofs,
            line.set_up,
            cell(line.why, most=240),
        )
    out.print(table)
    return sum(line.wrong + line.unproven for line in lines)


def _when(since: float) -> str:
    return f"{datetime.fromtimestamp(since, UTC):%m-%d %H:%M}" if since else "-"
