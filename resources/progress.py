"""A window's progress, on the terminal while someone watches and in the log for those who don't."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from windrow.engine.mining.report import Progress

LOG_SECONDS = 5.0
"""A line at most this often: every line is a row in Dagster's event log."""


class ProgressDisplay:
    """Shows how a window goes."""

    @contextmanager
    def watch(
        self, window_start: int, max_groups: int | None, log: Callable[[str], None]
    ) -> Iterator[Callable[[Progress], None]]:
        """A function to call with each Progress.

        log: takes a line of `key=value` words at most every LOG_SECONDS, and one at the end.
        """
        last_line = ""
        last_time = time.monotonic()
        console = Console(stderr=True)
        bar = Bar(
            TextColumn(f"window {window_start}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("groups  {task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        with bar:
            task = bar.add_task("groups", total=max_groups, detail="")

            def show(progress: Progress) -> None:
                nonlocal last_line, last_time
                bar.update(task, completed=progress.finished, detail=_detail(progress))
                last_line = _line(window_start, progress)
                if time.monotonic() - last_time >= LOG_SECONDS:
                    log(last_line)
                    last_line, last_time = "", time.monotonic()

            yield show
        if last_line:
            log(last_line)


def _detail(progress: Progress) -> str:
    return (
        f"{progress.rollouts} rollouts, {progress.tokens} tokens, "
        f"reward {progress.mean_reward:.3f}, {progress.dropped} dropped"
    )


def _line(window_start: int, progress: Progress) -> str:
    return (
        f"window={window_start} finished={progress.finished} dropped={progress.dropped} "
        f"in_flight={progress.in_flight} rollouts={progress.rollouts} tokens={progress.tokens} "
        f"mean_reward={progress.mean_reward:.4f} blocks_left={progress.blocks_left}"
    )
