"""What is worked out once, when a day is compacted, so that no query reads every row for it.

A summary is a SELECT over one dataset, grouped by window: it is a view like a dataset, of rows that
lie beside a merged file, and of what the SELECT makes of rows that are not merged yet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

import duckdb
import pyarrow as pa

from windrow.resources.warehouse.dataset import Dataset
from windrow.resources.warehouse.files import LakeError, write_file
from windrow.resources.warehouse.schema import DATASETS

NO_DOWNLOADS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
"""Settings of a DuckDB that fetches no extension by itself."""
MEMORY_LIMIT: Final = "2GB"
"""Beyond it, making a summary spills to the lake's disk."""


@dataclass(frozen=True)
class Summary:
    """rows: name, columns and their meanings. of: the dataset. select: SQL over `{rows}`."""

    rows: Dataset
    of: str
    select: str

    @property
    def name(self) -> str:
        """The view's name."""
        return self.rows.name

    def over(self, source: str) -> str:
        """The SELECT over a table or a query in parentheses, its columns in their types."""
        return self.select.replace("{rows}", source)

    def beside(self, merged: str) -> str:
        """Path of the summary of a merged file. Another SELECT has another path."""
        edition = sha256(self.select.encode()).hexdigest()[:8]
        return f"{merged.removesuffix('.parquet')}.{self.name}-{edition}.parquet"


def summaries_of(dataset: str) -> list[Summary]:
    """The summaries made from a dataset."""
    return [summary for summary in SUMMARIES.values() if summary.of == dataset]


def write_summaries(root: Path, dataset: str, merged: str) -> tuple[str, ...]:
    """Write every summary of a merged file beside it; returns their paths in the lake.

    Raises LakeError, DiskFull, PathRefused.
    """
    written = []
    for summary in summaries_of(dataset):
        path = summary.beside(merged)
        write_file(root / path, summary.rows, _made(root, summary, merged), run_id="", replace=True)
        written.append(path)
    return tuple(written)


def _made(root: Path, summary: Summary, merged: str) -> Iterator[pa.RecordBatch]:
    config = NO_DOWNLOADS | {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(root / ".spill"),
    }
    try:
        with duckdb.connect(config=config) as connection:
            rows = connection.read_parquet(str(root / merged), hive_partitioning=False)
            rows.create_view("merged")
            for batch in connection.execute(summary.over("merged")).to_arrow_reader():
                yield batch.cast(summary.rows.schema)
    except duckdb.Error as error:
        raise LakeError(f"{summary.name} of {root / merged} cannot be made: {error}") from error


def _summary(
    name: str, of: str, description: str, select: str, **columns: tuple[pa.DataType, str]
) -> Summary:
    schema = pa.schema([(column, kind) for column, (kind, _) in columns.items()])
    meanings = {column: meaning for column, (_, meaning) in columns.items()}
    return Summary(Dataset(name, description, schema, MappingProxyType(meanings)), of, select)


_I64, _F64, _TEXT = pa.int64(), pa.float64(), pa.string()
_WINDOW = (_I64, "first block of the window")
_HOTKEY = (_TEXT, "SS58 address of the miner")

_SUMMARIES = (
    _summary(
        "rollout_totals",
        "rollouts",
        "one row a window and miner: its rollouts counted",
        """
        SELECT
            window_start, hotkey,
            count(*) AS rollouts,
            -- 64 bits of hash: of a window's few thousand completions no two collide.
            count(DISTINCT hash(tokens[prompt_length + 1:])) AS unique_rollouts,
            avg(generation_seconds) AS mean_generation_seconds,
            max(generation_seconds) AS most_generation_seconds,
            avg(reward_seconds) AS mean_reward_seconds,
            max(reward_seconds) AS most_reward_seconds
        FROM {rows}
        GROUP BY window_start, hotkey
        """,
        window_start=_WINDOW,
        hotkey=_HOTKEY,
        rollouts=(_I64, "rollouts"),
        unique_rollouts=(_I64, "distinct completions among them"),
        mean_generation_seconds=(_F64, "mean time to generate a group"),
        most_generation_seconds=(_F64, "longest time to generate a group"),
        mean_reward_seconds=(_F64, "mean time to evaluate a group"),
        most_reward_seconds=(_F64, "longest time to evaluate a group"),
    ),
    _summary(
        "check_totals",
        "verdicts",
        "one row a window, miner and check: its verdicts counted, its margins summed up",
        """
        SELECT
            window_start, hotkey, "check",
            count(*) AS verdicts,
            count(*) FILTER (NOT network_verdict) AS network_failed,
            count(*) FILTER (NOT windrow_verdict) AS windrow_failed,
            count(margin) AS compared,
            sum(margin) AS margin_sum,
            min(margin) AS least_margin,
            min(margin) FILTER (windrow_verdict AND margin >= 0) AS least_passing_margin
        FROM {rows}
        GROUP BY window_start, hotkey, "check"
        """,
        window_start=_WINDOW,
        hotkey=_HOTKEY,
        check=(_TEXT, "what was checked"),
        verdicts=(_I64, "verdicts"),
        network_failed=(_I64, "of those, negative by the network's rules"),
        windrow_failed=(_I64, "of those, negative by Windrow's own verdict"),
        compared=(_I64, "verdicts that compare numbers, and so have a margin"),
        margin_sum=(_F64, "sum of the margins"),
        least_margin=(_F64, "smallest margin; negative is beyond the threshold"),
        least_passing_margin=(_F64, "smallest margin of a verdict that is positive"),
    ),
    _summary(
        "failed_verdicts",
        "verdicts",
        "one row a window, miner, check and reason: the verdicts that are negative",
        """
        -- What the network refuses, Windrow refuses too.
        SELECT
            window_start, hotkey, "check", severity, reason,
            count(*) AS failed,
            count(*) FILTER (NOT network_verdict) AS network_failed
        FROM {rows}
        WHERE NOT windrow_verdict
        GROUP BY window_start, hotkey, "check", severity, reason
        """,
        window_start=_WINDOW,
        hotkey=_HOTKEY,
        check=(_TEXT, "what was checked"),
        severity=(_TEXT, "what a failure costs: ban, soft, ignored or strict"),
        reason=(_TEXT, "what is wrong, in words"),
        failed=(_I64, "verdicts"),
        network_failed=(_I64, "of those, negative by the network's rules"),
    ),
    _summary(
        "repeated_completions",
        "completions",
        "one row a window, completion and miner: those that are there more than once in the window",
        """
        SELECT window_start, digest, hotkey, count(*) AS copies
        FROM {rows} SEMI JOIN (
            SELECT window_start, digest
            FROM {rows}
            GROUP BY window_start, digest
            HAVING count(*) > 1
        ) USING (window_start, digest)
        GROUP BY window_start, digest, hotkey
        """,
        window_start=_WINDOW,
        digest=(pa.binary(), "SHA-256 of the completion's tokens"),
        hotkey=_HOTKEY,
        copies=(_I64, "rollouts of the miner that have it"),
    ),
)

SUMMARIES: Final[Mapping[str, Summary]] = MappingProxyType({s.name: s for s in _SUMMARIES})

TABLES: Final[Mapping[str, Dataset]] = MappingProxyType(
    {**DATASETS, **{summary.name: summary.rows for summary in SUMMARIES.values()}}
)
"""Everything a query can name."""
