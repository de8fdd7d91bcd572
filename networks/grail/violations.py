"""Broken rules as rows of a table, found on whole columns at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from windrow.networks.grail.columns import Mask

VIOLATION_SCHEMA: Final = pa.schema(
    {
        "scope": pa.string(),
        "row": pa.int64(),
        "rollout_group": pa.int64(),
        "check": pa.string(),
        "severity": pa.string(),
        "measured": pa.float64(),
        "threshold": pa.float64(),
        "reason": pa.string(),
    }
)
"""One row for every rule broken by a rollout, a group or the file.

scope: "file", "group" or "rollout". row: the rollout's row in the file. check: the validator's
own name of the check where it has one. measured, threshold: null where the rule compares no
numbers. reason: what is wrong, in words.
"""


class Severity(StrEnum):
    """What a Grail validator makes of a violation."""

    BAN = "ban"  # checking it fails the whole file: nothing earned, 14 windows without weight
    SOFT = "soft"  # counted, and the file fails when enough rollouts have it
    IGNORED = "ignored"  # the file counts as missing: nothing earned, no ban
    STRICT = "strict"  # accepted by the network, although no honest miner produces it


@dataclass
class Violations:
    """Collects violations of rollouts whose rollout_group column is `groups` (int64 [n])."""

    groups: pa.Array
    tables: list[pa.Table] = field(default_factory=list)

    def rollouts(
        self,
        broken: Mask,
        check: str,
        severity: Severity,
        reason: str | Sequence[str],
        *,
        measured: Any = None,
        threshold: Any = None,
    ) -> None:
        """One violation for every marked row (bool [n]).

        reason: the same for all, or one for each marked row. measured, threshold: one number for
        all rows or numbers [n].
        """
        rows = np.flatnonzero(broken)
        if len(rows):
            numbers = (
                None if values is None else np.broadcast_to(values, len(broken))[rows]
                for values in (measured, threshold)
            )
            groups = self.groups.take(pa.array(rows))
            self._add("rollout", rows, groups, check, severity, reason, *numbers)

    def of_groups(
        self,
        groups: pa.Array,
        check: str,
        severity: Severity,
        reason: str,
        *,
        measured: Any = None,
        threshold: Any = None,
    ) -> None:
        """One violation for every group of `groups` (int64 [g]); numbers as in `rollouts`."""
        self._add("group", None, groups, check, severity, reason, measured, threshold)

    def of_file(
        self,
        check: str,
        severity: Severity,
        reason: str,
        *,
        measured: float | None = None,
        threshold: float | None = None,
    ) -> None:
        """One violation of the whole file."""
        no_group = pa.nulls(1, pa.int64())
        self._add("file", None, no_group, check, severity, reason, measured, threshold)

    def table(self) -> pa.Table:
        """Everything found, VIOLATION_SCHEMA, in the order it was found."""
        return pa.concat_tables([VIOLATION_SCHEMA.empty_table(), *self.tables])

    def _add(
        self,
        scope: str,
        rows: NDArray[np.int64] | None,
        groups: pa.Array,
        check: str,
        severity: Severity,
        reason: str | Sequence[str],
        measured: Any,
        threshold: Any,
    ) -> None:
        count = len(groups)

        def numbers(values: Any) -> pa.Array:
            if values is None:
                return pa.nulls(count, pa.float64())
            return pa.array(np.broadcast_to(np.asarray(values, np.float64), count))

        columns = [
            pa.repeat(scope, count),
            pa.nulls(count, pa.int64()) if rows is None else pa.array(rows, pa.int64()),
            groups,
            pa.repeat(check, count),
            pa.repeat(str(severity), count),
            numbers(measured),
            numbers(threshold),
            pa.repeat(reason, count) if isinstance(reason, str) else pa.array(reason, pa.string()),
        ]
        self.tables.append(pa.Table.from_arrays(columns, schema=VIOLATION_SCHEMA))
