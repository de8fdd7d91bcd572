"""What the demo prints of its windows, each table one query to the lake."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from windrow.pipelines.commands.printing import cell
from windrow.resources.warehouse.lake import Lake

MINED = """
SELECT s.window_start, s.groups, s.rollouts, s.mean_reward,
       r.tokens / nullif(r.seconds, 0) AS tokens_per_second, r.proof_seconds,
       u.margin_seconds, u.sha256
FROM submissions s
JOIN uploads u USING (window_start, hotkey)
JOIN window_runs r USING (window_start, hotkey)
WHERE s.window_start >= ?
ORDER BY s.window_start
"""
VERDICTS = """
SELECT v.window_start, v.hotkey, v.state, s.had_failure, v.windrow_failures, s.estimated_unique,
       s.reason
FROM validations v JOIN scores s USING (window_start, hotkey, validator)
WHERE v.window_start >= ?
ORDER BY v.window_start, v.uploaded_at
"""
WEIGHTS = """
SELECT hotkey, uid, unique_sum, windows_checked, windows_available, cap_share, weight
FROM weights WHERE window_start = ? AND (uid = 0 OR windows_available > 0)
ORDER BY uid
"""


def print_mined(out: Console, lake: Lake, first: int) -> None:
    """A line a window mined from `first` on."""
    table = _table("mined windows, from the lake", gap=0)
    for name in ("window", "groups", "rollouts", "reward", "tok/s", "proof s", "margin"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("file", overflow="fold", min_width=16)
    table.add_column("sha256", no_wrap=True, min_width=8)
    for row in lake.query(MINED, [first]).to_pylist():
        window = row["window_start"]
        table.add_row(
            str(window),
            str(row["groups"]),
            str(row["rollouts"]),
            f"{row['mean_reward']:.3f}",
            "-" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.0f}",
            f"{row['proof_seconds']:.2f}",
            f"{row['margin_seconds']:.0f}",
            f"…{window}.parquet",
            row["sha256"][:8],
        )
    out.print(table)


def print_verdicts(out: Console, lake: Lake, first: int, names: Mapping[str, str]) -> None:
    """A line a window and miner validated from `first` on. names: by hotkey."""
    table = _table("verdicts and scores")
    for name in ("window", "miner", "network", "Windrow"):
        table.add_column(name, no_wrap=True)
    table.add_column("unique", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in lake.query(VERDICTS, [first]).to_pylist():
        looked_at = row["had_failure"] is not None
        wrong = row["windrow_failures"]
        table.add_row(
            str(row["window_start"]),
            _miner(row["hotkey"], names),
            ("refuses" if row["had_failure"] else "accepts") if looked_at else row["state"],
            "-" if wrong is None else f"{wrong} wrong" if wrong else "accepts",
            str(row["estimated_unique"] or 0),
            cell(row["reason"] or ""),
        )
    out.print(table)


def print_weights(out: Console, lake: Lake, window: int, names: Mapping[str, str]) -> None:
    """The weights a validator would set after a window. names: by hotkey."""
    table = _table(f"weight forecast after window {window}")
    table.add_column("miner", no_wrap=True)
    for name in ("unique", "checked", "available", "share of cap", "weight"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in lake.query(WEIGHTS, [window]).to_pylist():
        table.add_row(
            "burnt" if row["uid"] == 0 else _miner(row["hotkey"], names),
            str(row["unique_sum"]),
            f"{row['windows_checked']} windows",
            f"{row['windows_available']} windows",
            f"{row['cap_share']:.3g}",
            f"{row['weight']:.4g}",
        )
    out.print(table)


def _miner(hotkey: str, names: Mapping[str, str]) -> str:
    return names.get(hotkey, f"{hotkey[:5]}…")


def _table(title: str, gap: int = 1) -> Table:
    """gap: blanks between columns, besides the one that is always there."""
    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False
    )
