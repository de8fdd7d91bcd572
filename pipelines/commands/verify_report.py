"""What `windrow verify` prints: a page a file, or one JSON document."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.text import Text

from windrow.engine.validation.validator import FileVerdict
from windrow.networks.grail.constants import BLOCK_SECONDS, WINDOW_BLOCKS
from windrow.networks.grail.validation.service import BAN_WINDOWS
from windrow.pipelines.commands.printing import cell, plain
from windrow.pipelines.commands.verdict_tables import (
    by_check,
    checks_table,
    failure_line,
    failures,
    what_to_change,
)
from windrow.pipelines.commands.verify import Fate, Judged, Unjudged, exit_status

SHOWN_EACH = 3
"""Failures of one check on a page; JSON has all."""

BAN_MINUTES = BAN_WINDOWS * WINDOW_BLOCKS * BLOCK_SECONDS / 60

FATES = {
    Fate.ACCEPTED: "accepts it",
    Fate.BANNED: f"refuses it and bans the miner for {BAN_WINDOWS} windows "
    f"({BAN_MINUTES:.0f} minutes)",
    Fate.IGNORED: "ignores it as if nothing had been uploaded: no score, no ban",
    Fate.UNKNOWN: "may accept or refuse it: a limit of Windrow stopped the checks",
}

RANDOMNESS = {
    "given": "as given",
    "chain": "of the closed window",
    "drawn": "drawn at random, as the window has not closed; repeat with --randomness",
}


def print_json(out: Console, reports: Sequence[Judged | Unjudged]) -> None:
    """One document: every file with every failure, and the exit status."""
    document = {
        "files": [_document(report) for report in reports],
        "exit_status": exit_status(reports),
    }
    out.file.write(json.dumps(plain(document), indent=1) + "\n")


def print_page(out: Console, report: Judged | Unjudged) -> None:
    """What came out, check by check, and what to change."""
    if isinstance(report, Unjudged):
        _line(out, cell(report.location, 300), style="bold")
        _line(out, f"  {type(report.error).__name__}: ", cell(report.error, 600), style="bold red")
        return
    _line(out, cell(report.location, 300), f", {report.size:,} bytes", style="bold")
    reason = f" ({report.network_reason})" if report.network_reason else ""
    _line(out, "  the network ", _good(report.fate is Fate.ACCEPTED, FATES[report.fate] + reason))
    own = "accepts it" if report.windrow_accepts else "refuses it"
    _line(out, "  Windrow ", _good(report.windrow_accepts, own))
    if report.problem:
        _line(out, "  ", cell(report.problem, 600))
    if report.verdict:
        _print_verdict(out, report, report.verdict)
    out.print()


def _print_verdict(out: Console, report: Judged, verdict: FileVerdict) -> None:
    replay, outcome = verdict.replay, verdict.outcome
    context = replay.context
    _line(out, "  held against window ", f"{context.window}, hotkey ", cell(context.hotkey))
    came_from = RANDOMNESS[report.randomness_from or "given"]
    _line(out, f"  randomness {context.validator_randomness} ({came_from})")
    looked = "every rollout" if context.every_rollout else "the network's sample"
    groups = "group " + ", ".join(map(str, replay.sampled_groups))
    sample = cell(groups) if replay.sampled_groups else "empty: the file has no group"
    _line(out, f"  looked at {looked}; the network's sample is ", sample)
    if context.calibration:
        _line(out, "  limits of the proof check: ", cell(context.calibration.source, 600))
    if outcome and not outcome.metrics.had_failure:
        m = outcome.metrics
        _line(
            out,
            f"  {m.unique} of {m.checked} sampled completions are distinct, so that its "
            f"{m.total} rollouts count as {m.estimated_unique}",
        )
    if report.chance is not None:
        _line(
            out,
            f"  whatever the randomness, the network refuses it with probability "
            f"{report.chance:.4g}",
        )
    for what, texts in (
        ("not checked", [", ".join(verdict.skipped)] if verdict.skipped else []),
        ("this machine failed", verdict.faults),
    ):
        for text in texts:
            _line(out, f"  {what}: ", cell(text, 600), style="yellow")
    summaries = by_check(verdict.verdicts)
    out.print(checks_table(summaries))
    for row in failures(verdict.verdicts, SHOWN_EACH):
        _line(out, "  - ", failure_line(row))
    refused = sum(summary.found - summary.windrow_passed for summary in summaries)
    shown = sum(min(SHOWN_EACH, s.found - s.windrow_passed) for s in summaries)
    if refused > shown:
        _line(out, f"  and {refused - shown} more; --json lists all")
    for check, sentence in what_to_change(summaries):
        _line(out, "  change: ", (check, "bold"), f": {sentence}")


def _document(report: Judged | Unjudged) -> dict[str, Any]:
    if isinstance(report, Unjudged):
        error = {"kind": type(report.error).__name__, "message": str(report.error)}
        return {"file": report.location, "error": error}
    document = {
        "file": report.location,
        "bytes": report.size,
        "sha256": report.sha256,
        "network_verdict": None if report.fate is Fate.UNKNOWN else str(report.fate),
        "network_reason": report.network_reason,
        "windrow_verdict": "accepted" if report.windrow_accepts else "refused",
        "problem": report.problem,
        "error": None,
    }
    return document | (_of_verdict(report, report.verdict) if report.verdict else {})


def _of_verdict(report: Judged, verdict: FileVerdict) -> dict[str, Any]:
    refused = verdict.verdicts.filter(pc.invert(verdict.verdicts["windrow_verdict"]))
    return {
        "metrics": asdict(verdict.outcome.metrics) if verdict.outcome else None,
        "checks": [asdict(summary) for summary in by_check(verdict.verdicts)],
        "failures": refused.drop_columns(["window_start", "hotkey"]).to_pylist(),
        "skipped": list(verdict.skipped),
        "faults": list(verdict.faults),
        "chance_of_refusal": report.chance,
        "randomness_from": report.randomness_from,
        "replay": json.loads(verdict.replay.to_json()),
    }


def _good(good: bool, text: str) -> tuple[str, str]:
    return (text, "green" if good else "bold red")


def _line(out: Console, *parts: str | Text | tuple[str, str], style: str = "") -> None:
    out.print(Text.assemble(*parts, style=style))
