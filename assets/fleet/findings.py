"""What a person sees of a step: its checks as a table, its verdict, its times over history."""

from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from windrow.assets.fleet.stage import Stage
from windrow.engine.fleet.cards import CHECK as CARDS
from windrow.engine.fleet.checks import NodeCheck

MOST_ROWS = 100
HISTORY = """
SELECT kind, observed_at, coalesce(gpu_uuid, 'node') AS gpu, seconds, passed
FROM attestations
WHERE node = ? AND run_id <> ? AND seconds IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY kind ORDER BY observed_at DESC) <= 400
"""
LEAST_POINTS = 2


def verdict_of(asset: str) -> dg.AssetCheckSpec:
    """The check that every step with findings has."""
    return dg.AssetCheckSpec(
        "verdict", asset=asset, description="nothing found is wrong, by Windrow or by a network"
    )


def result(
    step: Stage, metadata: dict[str, Any] | None = None, *, check: str = "verdict"
) -> dg.MaterializeResult:
    """A stored step's materialization, with the table of its checks and its verdict."""
    shown: dict[str, Any] = dict(metadata or {})
    if step.checks:
        shown["checks"] = checks_table(step.checks)
    if step.proofs:
        shown["seconds"] = round(max(row["seconds"] or 0.0 for row in step.proofs), 3)
        shown["verify_seconds"] = round(sum(row["verify_seconds"] or 0 for row in step.proofs), 3)
        plot = _history(step)
        if plot is not None:
            shown["timing"] = plot
    return dg.MaterializeResult(metadata=shown, check_results=[_verdict(step.checks, check)])


def checks_table(checks: Sequence[NodeCheck]) -> dg.TableMetadataValue:
    """The checks, those that say no first."""
    ordered = sorted(checks, key=lambda c: (c.windrow_verdict is not False, c.check))
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "check": check.check,
                    "network": check.network,
                    "network says": said(check.network_verdict),
                    "true": said(check.windrow_verdict),
                    "measured": _number(check.measured, check.unit),
                    "needed": _number(check.needed, check.unit),
                    "gpu": check.gpu or "",
                    "why": check.reason[:300],
                    "remedy": check.remedy[:300],
                }
            )
            for check in ordered[:MOST_ROWS]
        ]
        or [dg.TableRecord({"check": "none"})]
    )


def said(verdict: bool | None) -> str:
    """A verdict in a word."""
    return {True: "yes", False: "no", None: "-"}[verdict]


def _verdict(checks: Iterable[NodeCheck], name: str) -> dg.AssetCheckResult:
    """Windrow's no is an error; a no that only the network says, or cards that did not answer, a
    warning."""
    checks = list(checks)
    wrong = [check for check in checks if check.windrow_verdict is False]
    refused = [check for check in checks if check.network_verdict is False]
    missing = [check for check in checks if check.check == CARDS and check.windrow_verdict is None]
    found = wrong or refused or missing
    said_so = "; ".join(f"{check.check} ({check.network}): {check.reason}" for check in found[:3])
    return dg.AssetCheckResult(
        check_name=name,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if wrong else dg.AssetCheckSeverity.WARN,
        description=said_so[:1000] or f"{len(checks)} checks, nothing wrong",
        metadata={
            "checks": len(checks),
            "wrong": len(wrong),
            "refused_by": ", ".join(sorted({check.network for check in refused})) or "none",
            "not_measured": sum(check.windrow_verdict is None for check in checks),
        },
    )


def _history(step: Stage) -> dg.MarkdownMetadataValue | None:
    rows = _timings(step).get(step.name, []) + [
        row | {"observed_at": step.observed_at, "gpu": row["gpu_uuid"] or "node"}
        for row in step.proofs
        if row["seconds"] is not None
    ]
    if len(rows) < LEAST_POINTS:
        return None
    from windrow.assets.window.plots import timing_plot

    return timing_plot(rows)


def _timings(step: Stage) -> dict[str, list[dict[str, Any]]]:
    """Earlier proofs of the node by kind, looked up once a run: every query opens every file."""
    if step.remembered.timings is None:
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for row in step.lake.query(HISTORY, [step.node.name, step.run_id]).to_pylist():
            by_kind.setdefault(row.pop("kind"), []).append(row)
        step.remembered.timings = by_kind
    return step.remembered.timings


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.4g} {unit}".strip()
