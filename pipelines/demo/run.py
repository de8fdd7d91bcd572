"""`windrow demo`: mine a few windows of the embedded network, one after the other."""

import os
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from windrow import WindrowError
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.resources.lake import Lake
from windrow.resources.settings import Settings

RESULTS = """
SELECT s.window_start, s.hotkey, s.groups, s.rollouts, s.mean_reward,
       r.tokens / nullif(r.seconds, 0) AS tokens_per_second, r.proof_seconds,
       u.margin_seconds, u.sha256
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
                run_config={
                    "ops": {"window_stream": {"config": {"max_groups": groups}}},
                    "loggers": {"console": {"config": {"log_level": "INFO"}}},
                },
                raise_on_error=False,
            )
            if not result.success:
                failed = [e for e in result.all_events if e.is_step_failure]
                raise DemoFailed(
                    f"window {window} failed in {', '.join(str(e.step_key) for e in failed)}; "
                    f"run {result.run_id} has the details: make ui"
                )
    _print_results(out, Lake(settings.lake), first or 0)
    out.print(NEXT.format(bucket=settings.bucket), highlight=False, soft_wrap=True)


def _print_results(out: Console, lake: Lake, first: int) -> None:
    table = Table(
        title="mined windows, from the lake",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("window", "groups", "rollouts", "reward", "tok/s", "proof s", "margin"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("file", overflow="fold", min_width=16)
    table.add_column("sha256", no_wrap=True)
    for row in lake.query(RESULTS, [first]).to_pylist():
        hotkey, window = row["hotkey"], row["window_start"]
        table.add_row(
            str(window),
            str(row["groups"]),
            str(row["rollouts"]),
            f"{row['mean_reward']:.3f}",
            "-" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.0f}",
            f"{row['proof_seconds']:.2f}",
            f"{row['margin_seconds']:.0f}",
            f"{hotkey[:5]}…-window-{window}.parquet",
            row["sha256"][:8],
        )
    out.print(table)


NEXT = """reward: mean of the rollouts; margin: seconds that were left until the network's deadline.
The files are in {bucket}, signed by a development key.

Type next:
  make ui                        the pipeline in a browser; it mines every window that opens
  .venv/bin/windrow status       the chain and the newest windows
  .venv/bin/windrow doctor       what is configured, what is missing
  .venv/bin/windrow sql --list   what can be asked of the lake
"""
