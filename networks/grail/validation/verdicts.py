"""One check of one rollout: what the network says, what is true, and by how much.

A check never stops the next one: every check runs on every rollout, and what the network makes of
them together is worked out afterwards (`gates`, `outcome`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from windrow.networks.grail.violations import Severity

HARD_CHECKS: Final = (
    "schema_valid",
    "tokens_valid",
    "env_prompt_valid",
    "proof_valid",
    "termination_valid",
    "env_eval_valid",
    "logprobs_valid",
)
"""Checks that fail the whole file, in the order the network looks for one (grail-validation §1)."""

SOFT_CHECKS: Final = MappingProxyType({"reward_valid": 0.20, "token_distribution_valid": 0.51})
"""Checks that fail the file from this share of the planned rollouts on, in order (§1, §9)."""

VERDICT_SCHEMA: Final = pa.schema(
    {
        "window_start": pa.int64(),
        "hotkey": pa.string(),
        "rollout_group": pa.int64(),
        "rollout_index": pa.int32(),
        "nonce": pa.int64(),
        "row": pa.int64(),
        "check": pa.string(),
        "severity": pa.string(),
        "network_verdict": pa.bool_(),
        "windrow_verdict": pa.bool_(),
        "measured": pa.float64(),
        "threshold": pa.float64(),
        "margin": pa.float64(),
        "reason": pa.string(),
        "python": pa.string(),
    }
)
"""One row a rollout and check. hotkey: the file's owner. row: within the file; row, rollout_index
and nonce are null for a check of a group, rollout_group too for a check of the file. measured,
threshold: null where no numbers are compared. margin: how far within the threshold, negative
beyond it. reason: empty where both verdicts are positive. python: version that graded the file's
completions; null where none was graded. network_verdict: null where a limit of Windrow stopped the
check, so that the network's word is not known; the reason names it."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found. Fields as in VERDICT_SCHEMA."""

    check: str
    severity: Severity
    network_verdict: bool | None
    windrow_verdict: bool
    measured: float | None
    threshold: float | None
    margin: float | None
    reason: str


@dataclass(frozen=True)
class Place:
    """Where in a window a check looked; None as far as it looked at more than that."""

    rollout_group: int | None = None
    rollout_index: int | None = None
    nonce: int | None = None
    row: int | None = None


def result(
    check: str,
    *,
    network_reason: str | None,
    windrow_reason: str | None = None,
    measured: float | None = None,
    threshold: float | None = None,
    margin: float | None = None,
) -> CheckResult:
    """A check's result. A reason is why the verdict is negative; None is a positive verdict.

    Windrow refuses all that the network refuses, and what `windrow_reason` names besides.
    """
    network = network_reason is None
    windrow = network and windrow_reason is None
    if network and not windrow:
        severity = Severity.STRICT
    elif check in SOFT_CHECKS:
        severity = Severity.SOFT
    else:
        severity = Severity.BAN if check in HARD_CHECKS or not network else Severity.STRICT
    reason = network_reason or windrow_reason or ""
    return CheckResult(check, severity, network, windrow, measured, threshold, margin, reason)


def stopped(check: str, limit: str) -> CheckResult:
    """The result of a check that a limit of Windrow stopped: the network's word is not known."""
    return CheckResult(check, Severity.STRICT, None, False, None, None, None, limit)


def verdict_table(
    window: int, hotkey: str, results: Iterable[tuple[Place, CheckResult]]
) -> pa.Table:
    """Results of one miner's window as VERDICT_SCHEMA."""
    rows = [
        {"window_start": window, "hotkey": hotkey}
        | vars(place)
        | vars(found)
        | {"severity": str(found.severity)}
        for place, found in results
    ]
    return pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA)


def violation_verdicts(
    violations: pa.Table, rollouts: pa.Table, *, window: int, hotkey: str
) -> pa.Table:
    """Violations (VIOLATION_SCHEMA) of a file's rollouts (FLAT_SCHEMA) as VERDICT_SCHEMA.

    A violation that the network ignores or never looks for has a positive network_verdict.
    """
    count = violations.num_rows
    rows = violations.column("row").combine_chunks()
    severity = violations.column("severity")
    harmless = pa.array([str(Severity.STRICT), str(Severity.IGNORED)])
    beyond = pc.abs(pc.subtract(violations.column("measured"), violations.column("threshold")))
    columns = {
        "window_start": pa.repeat(pa.scalar(window, pa.int64()), count),
        "hotkey": pa.repeat(hotkey, count),
        "rollout_index": rollouts.column("rollout_index").combine_chunks().take(rows),
        "nonce": rollouts.column("nonce").combine_chunks().take(rows),
        "row": rows,
        "network_verdict": pc.is_in(severity, value_set=harmless),
        "windrow_verdict": pa.repeat(False, count),
        "margin": pc.negate(beyond),
    }
    for name in ("rollout_group", "check", "severity", "measured", "threshold", "reason"):
        columns[name] = violations.column(name)
    columns["python"] = pa.nulls(count, pa.string())
    return pa.table({name: columns[name] for name in VERDICT_SCHEMA.names}, schema=VERDICT_SCHEMA)


def graded_by(verdicts: pa.Table, python: str | None) -> pa.Table:
    """The same rows (VERDICT_SCHEMA) with the version of Python that graded the completions."""
    position = VERDICT_SCHEMA.get_field_index("python")
    versions = pa.repeat(pa.scalar(python, pa.string()), verdicts.num_rows)
    return verdicts.set_column(position, VERDICT_SCHEMA.field("python"), versions)
