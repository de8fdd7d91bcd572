"""`windrow demo`: mine a few windows of the embedded network, one after the other."""

import logging
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from windrow import WindrowError
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.resources.lake import Lake
from windrow.resources.settings import Settings

RESULTS = """
SELECT s.window_start, s.groups, s.rollouts, s.mean_reward,
       r.tokens / nullif(r.seconds, 0) AS tokens_per_second, r.proof_seconds,
       u.margin_seconds, u.key, u.sha256
FROM submissions s
JOIN uploads u USING (window_start, hotkey)
JOIN window_runs r USING (window_start, hotkey)
WHERE s.window_start >= ?
ORDER BY s.window_start
"""


class DemoFailed(WindrowError):
    """A demo window did not end with an upload."""


def run_demo(out: Console, windows: int, groups: int) -> None:
    """Mine `windows` windows of `groups` groups and print what DuckDB says of them.

    The development chain jumps to the next window instead of waiting for it; from there its clock
    runs on, so deadlines and time budgets are real. Raises DemoFailed.
    """
    os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))
    logging.getLogger("dagster").setLevel(logging.WARNING)
    import dagster as dg

    from windrow.pipelines.build import build
    from windrow.pipelines.embedded import embedded_chain

    settings = Settings.read()
    chain = embedded_chain(settings)
    definitions = build(settings)
    job = definitions.resolve_job_def("mine_window")
    first = None
    with dg.DagsterInstance.get() as instance:
        for number in range(windows):
            window = window_start(chain.block()) + WINDOW_BLOCKS
            chain.advance_to(window)
            first = window if first is None else first
            out.print(f"window {window} ({number + 1} of {windows}): {groups} groups of 16 …")
            result = job.execute_in_process(
                partition_key=str(window),
                instance=instance,
                run_config={"ops": {"window_stream": {"config": {"max_groups": groups}}}},
                raise_on_error=False,
            )
            if not result.success:
                failed = [e for e in result.all_events if e.is_step_failure]
                raise DemoFailed(
                    f"window {window} failed in {', '.join(str(e.step_key) for e in failed)}; "
                    f"run {result.run_id} has the details: make ui"
                )
    _print_results(out, Lake(settings.lake), first or 0)


def _print_results(out: Console, lake: Lake, first: int) -> None:
    found = lake.query(RESULTS, [first])
    table = Table(title="mined windows, from the lake")
    for name in ("window", "groups", "rollouts", "mean reward", "tokens/s", "proof s", "margin s"):
        table.add_column(name, justify="right")
    table.add_column("file", overflow="fold")
    table.add_column("sha256", overflow="fold")
    for row in found.to_pylist():
        table.add_row(
            str(row["window_start"]),
            str(row["groups"]),
            str(row["rollouts"]),
            f"{row['mean_reward']:.3f}",
            f"{row['tokens_per_second'] or 0:.0f}",
            f"{row['proof_seconds']:.2f}",
            f"{row['margin_seconds']:.0f}",
            row["key"].rpartition("/")[2],
            row["sha256"][:16],
        )
    out.print(table)
