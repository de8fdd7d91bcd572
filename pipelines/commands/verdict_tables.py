"""Verdict rows as a person reads them: a line a check, then what fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from windrow.pipelines.commands.advice import ADVICE, place_of
from windrow.pipelines.commands.printing import cell


@dataclass(frozen=True)
class CheckSummary:
    """All results of one check in a file.

    found: results. network_passed, windrow_passed: how many of them each accepts. network_unknown:
    how many a limit of Windrow stopped. smallest_margin:
    None where nothing is measured. reason: of the first that fails.
    """

    check: str
    found: int
    network_passed: int
    network_unknown: int
    windrow_passed: int
    smallest_margin: float | None
    reason: str

    @property
    def passed(self) -> bool:
        return self.windrow_passed == self.found


def by_check(verdicts: pa.Table) -> list[CheckSummary]:
    """One summary a check, in the order of reports. verdicts: VERDICT_SCHEMA, of one file."""
    summaries = []
    for check in verdicts["check"].unique().to_pylist():
        of_check = verdicts.filter(pc.equal(verdicts["check"], check))
        failed = of_check.filter(pc.invert(of_check["windrow_verdict"]))
        summaries.append(
            CheckSummary(
                check=check,
                found=of_check.num_rows,
                network_passed=pc.sum(of_check["network_verdict"]).as_py() or 0,
                network_unknown=of_check["network_verdict"].null_count,
                windrow_passed=of_check.num_rows - failed.num_rows,
                smallest_margin=pc.min(of_check["margin"]).as_py(),
                reason=failed["reason"][0].as_py() if failed.num_rows else "",
            )
        )
    return sorted(summaries, key=lambda summary: (place_of(summary.check), summary.check))


def checks_table(summaries: list[CheckSummary]) -> Table:
    """A line a check: how many results pass, and by how much the closest."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("check")
    for name in ("network passes", "Windrow passes", "least margin"):
        table.add_column(name, justify="right")
    for summary in summaries:
        margin = summary.smallest_margin
        table.add_row(
            cell(summary.check),
            _share(summary.network_passed, summary.found - summary.network_unknown),
            _share(summary.windrow_passed, summary.found),
            "" if margin is None else f"{margin:+.4g}",
        )
    return table


_WHOSE: Final[Mapping[bool | None, str]] = MappingProxyType(
    {
        True: " [the network does not notice]",
        False: "",
        None: " [what the network says is not known]",
    }
)


def failures(verdicts: pa.Table, most_each: int) -> list[dict[str, Any]]:
    """Rows that Windrow refuses, at most so many of each check, in the order of reports."""
    refused = verdicts.filter(pc.invert(verdicts["windrow_verdict"]))
    found: list[dict[str, Any]] = []
    for check in sorted(refused["check"].unique().to_pylist(), key=lambda c: (place_of(c), c)):
        of_check = refused.filter(pc.equal(refused["check"], check))
        found += of_check.slice(0, most_each).to_pylist()
    return found


def failure_line(row: dict[str, Any]) -> Text:
    """Where a check fails, what was measured against what, and why."""
    where = "file"
    if row["rollout_group"] is not None:
        where = f"group {row['rollout_group']}"
        if row["rollout_index"] is not None:
            where += f" rollout {row['rollout_index']}"
    numbers = ""
    if row["measured"] is not None:
        numbers = f"measured {row['measured']:.6g}"
        if row["threshold"] is not None:
            numbers += f", threshold {row['threshold']:.6g}"
        numbers += ": "
    whose = _WHOSE[row["network_verdict"]]
    return Text.assemble(
        (f"{row['check']}", "bold"), f", {where}: {numbers}", cell(row["reason"], 300), whose
    )


def what_to_change(summaries: list[CheckSummary]) -> list[tuple[str, str]]:
    """A sentence for each check that fails, by its name."""
    failing = [summary.check for summary in summaries if not summary.passed]
    named = [check for check in failing if check != "file_structure"] or failing
    return [(check, ADVICE[check]) for check in named if check in ADVICE]


def _share(part: int, whole: int) -> Text:
    return Text(f"{part}/{whole}", "green" if part == whole else "bold red")
