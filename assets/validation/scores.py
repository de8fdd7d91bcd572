"""What a validated window counts for, once miners are held against each other."""

from typing import Any

import dagster as dg
import pyarrow as pa

from windrow.assets.validation.memory import interval_start, remember
from windrow.assets.window.faults import faults_kept
from windrow.assets.window.partitions import windows
from windrow.assets.window.stored import stored_table
from windrow.engine.validation.memory import copies
from windrow.networks.grail.validation.copies import CopyReport
from windrow.networks.grail.validation.service import BAN_WINDOWS, ServiceState
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS

VALIDATED = """
SELECT window_start, hotkey, total, uploaded_at, had_failure FROM validations
WHERE validator = ? AND window_start BETWEEN ? AND ? AND state = 'checked'
"""
COMPLETIONS = """
SELECT window_start, hotkey, digest FROM completions WHERE window_start BETWEEN ? AND ?
"""


@dg.asset(
    partitions_def=windows,
    group_name="validation",
    deps=["verdicts"],
    kinds={"duckdb"},
    check_specs=[
        dg.AssetCheckSpec(
            "coverage", asset="scores", description="every miner with an upload has a score"
        )
    ],
)
def scores(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
) -> dg.MaterializeResult:
    """Unique rollouts that count, failures, copies and bans (grail-validation §11, §13, §14)."""
    window, validator = int(context.partition_key), wallet.hotkey
    with faults_kept(lake, window, validator, "scores", context.run.run_id):
        validations = stored_table(lake, "validations", window, validator).to_pylist()
        report = _copies(lake, validator, window)
        rows = [_row(validation, report) for validation in validations]
        state = remember(lake, validator, window, DATASETS["scores"].table(rows))
        for row in rows:
            row["ban_windows_left"] = ban_windows_left(state, row["hotkey"])
        table = DATASETS["scores"].table(rows)
        lake.write("scores", window, validator, table, run_id=context.run.run_id, replace=True)
    selected = [row for row in rows if row["selected"]]
    failed = [row for row in rows if row["had_failure"]]
    return dg.MaterializeResult(
        metadata={
            "miners": len(rows),
            "active": sum(row["active"] for row in rows),
            "looked_at": len(selected),
            "failed": len(failed),
            "copiers": sum(row["network_copier"] for row in rows),
            "estimated_unique": sum(row["estimated_unique"] or 0 for row in rows),
            "miners_by_score": dg.MetadataValue.md(_markdown(rows)),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="coverage",
                passed=len(rows) == len(validations) and _all_scored(rows),
                metadata={"miners": len(validations), "scored": len(rows)},
            )
        ],
    )


def ban_windows_left(state: ServiceState, hotkey: str) -> int:
    """Windows until a miner's last failure is forgotten, 0 for none (§14)."""
    for age, failed in enumerate(reversed(state.failures.sets)):
        if hotkey in failed:
            return BAN_WINDOWS - age
    return 0


def _copies(lake: Lake, validator: str, window: int) -> CopyReport:
    """Copies among the miners validated in this window, and in its interval so far."""
    of_interval = [validator, interval_start(window), window]
    validations = lake.query(VALIDATED, of_interval)
    completions = lake.query(COMPLETIONS, of_interval[1:])
    digests = completions["digest"].cast(pa.binary(32))
    completions = completions.set_column(2, "digest", digests)
    return copies(validations, completions, window)


def _row(validation: dict[str, Any], report: CopyReport) -> dict[str, Any]:
    hotkey, state = validation["hotkey"], validation["state"]
    overlaps = [o for o in (*report.window, *report.interval) if hotkey in o.pair]
    worst = max(overlaps, key=lambda overlap: overlap.ratio, default=None)
    gated = hotkey in report.network_copiers
    reason = validation["network_reason"]
    return {
        "window_start": validation["window_start"],
        "hotkey": hotkey,
        "validator": validation["validator"],
        "active": state not in {"late", "bad_size", "missing"},
        "eligible": state in {"checked", "not_selected", "unreadable", "unfinished"},
        "selected": state in {"checked", "unreadable", "unfinished"},
        "estimated_unique": 0 if gated else validation["estimated_unique"],
        "had_failure": 1 if gated else validation["had_failure"],
        "reason": "copied completions" if gated else reason,
        "copy_ratio": worst.ratio if worst else 0.0,
        "copied_from": _other(worst.pair, hotkey) if worst and worst.violates else None,
        "network_copier": gated,
        "windrow_copier": hotkey in report.windrow_copiers,
        "ban_windows_left": 0,
    }


def _other(pair: tuple[str, str], hotkey: str) -> str:
    return pair[1] if pair[0] == hotkey else pair[0]


def _all_scored(rows: list[dict[str, Any]]) -> bool:
    return all(
        row["had_failure"] in {0, 1} and row["estimated_unique"] >= 0
        for row in rows
        if row["selected"] and row["had_failure"] is not None
    )


def _markdown(rows: list[dict[str, Any]], most: int = 20) -> str:
    best = sorted(rows, key=lambda row: row["estimated_unique"] or 0, reverse=True)[:most]
    lines = ["| miner | unique | failure | reason | ban left |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['hotkey'][:8]}… | {row['estimated_unique'] or 0} | {row['had_failure'] or 0} | "
        f"{row['reason'] or ''} | {row['ban_windows_left']} |"
        for row in best
    ]
    return "\n".join(lines)
