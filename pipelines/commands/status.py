"""`windrow status`: where the chain stands and how the newest windows went."""

import os

from rich.console import Console
from rich.table import Table

from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.pipelines.commands.printing import cell
from windrow.pipelines.instance import open_instance
from windrow.pipelines.live import open_chain, open_wallet
from windrow.pipelines.runs.queue import inspect_queue
from windrow.resources.chain import Chain
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse.lake import Lake

NO_DAGSTER_HOME = "The run queue is not shown: set DAGSTER_HOME to the folder of dagster.yaml."
DAY = 86_400.0
"""Seconds; windows mined afterwards are late by days."""
NEWEST = """
SELECT coalesce(r.window_start, f.window_start) AS window_start, s.groups, s.mean_reward,
       r.stopped_by, u.on_time, u.margin_seconds, f.faults, f.last_fault
FROM window_runs r
LEFT JOIN submissions s USING (window_start, hotkey)
LEFT JOIN uploads u USING (window_start, hotkey)
FULL JOIN (
    SELECT window_start, hotkey, count(*) AS faults, arg_max(reason, recorded_at) AS last_fault
    FROM faults GROUP BY window_start, hotkey
) f USING (window_start, hotkey)
WHERE coalesce(r.hotkey, f.hotkey) = ?
ORDER BY window_start DESC LIMIT 10
"""


def show(out: Console) -> None:
    """Print the chain's height, the open window and the ten newest windows of this hotkey."""
    settings = Settings.read()
    chain = open_chain(settings)
    hotkey = open_wallet(settings).hotkey
    block = chain.block()
    window = window_start(block)
    out.print(
        f"block {block}; window {window} is open for {window + WINDOW_BLOCKS - block} more blocks, "
        f"uploads until {chain.deadline(window) - chain.now():.0f} s from now; hotkey {hotkey}"
    )
    _show_queue(out, chain)
    table = Table(title="newest windows", title_justify="left")
    for name in ("window", "groups", "reward", "stopped by", "upload", "faults", "last fault"):
        table.add_column(name)
    for row in Lake(settings.lake).query(NEWEST, [hotkey]).to_pylist():
        table.add_row(
            str(row["window_start"]),
            str(row["groups"] or "-"),
            "-" if row["mean_reward"] is None else f"{row['mean_reward']:.3f}",
            row["stopped_by"] or "-",
            _upload(row["on_time"], row["margin_seconds"]),
            str(row["faults"] or 0),
            row["last_fault"] or "",
        )
    out.print(table)


def _show_queue(out: Console, chain: Chain) -> None:
    if not os.environ.get("DAGSTER_HOME"):
        out.print(NO_DAGSTER_HOME)
        return
    with open_instance() as instance:
        queue = inspect_queue(instance, chain)
    out.print(queue.summarise())
    if not queue.troubled:
        return
    table = Table(title="runs that do not get on", title_justify="left")
    for name in ("run", "job", "window", "trouble", "for", "reason"):
        table.add_column(name)
    for run in queue.troubled:
        table.add_row(
            run.run_id[:8],
            run.job,
            "-" if run.window is None else str(run.window),
            str(run.trouble),
            f"{run.seconds:.0f} s",
            cell(run.reason),
        )
    out.print(table)


def _upload(on_time: bool | None, margin: float | None) -> str:
    if margin is None:
        return "none"
    apart = f"{abs(margin):.0f} s" if abs(margin) < DAY else f"{abs(margin) / DAY:.0f} d"
    return f"{apart} {'early' if on_time else 'late'}"
