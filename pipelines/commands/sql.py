"""`windrow sql`: read-only questions to the lake."""

import csv
import json
import re
from enum import StrEnum

import pyarrow as pa
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from windrow.pipelines.commands.named_queries import named_queries, query_named
from windrow.pipelines.commands.printing import cell, plain
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.warehouse.bucket import BucketLake
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.summaries import TABLES

MEASURED = 100_000
"""A width that no table has."""


_NAME = re.compile(r"\w+")


class Form(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def list_all(out: Console) -> None:
    """Every table and every named query, a line each."""
    tables = Table("table", "rows", title="tables", title_justify="left")
    for dataset in TABLES.values():
        tables.add_row(dataset.name, dataset.description)
    queries = Table("query", "answers", title="named queries", title_justify="left")
    for query in named_queries().values():
        queries.add_row(query.name, query.answers)
    out.print(tables, queries)
    out.print("windrow sql --list NAME explains the columns of a table or query")


def list_columns(out: Console, name: str) -> None:
    """The columns of a table or of a named query. Raises UnknownQuery."""
    if name in TABLES:
        dataset = TABLES[name]
        table = Table("column", "type", "meaning", title=f"{name}: {dataset.description}")
        for field in dataset.schema:
            table.add_row(field.name, str(field.type), dataset.columns[field.name])
    else:
        query = query_named(name)
        table = Table("column", "meaning", title=f"{name}: {query.answers}")
        for column, meaning in query.columns.items():
            table.add_row(column, meaning)
    out.print(table)


def print_query(out: Console, query: str, rows: int, form: Form, bucket: str = "") -> None:
    """What a query finds: its name or its SQL. As a table, the first `rows` rows.

    bucket: s3:// URL of a lake; default: the lake of the settings.

    Raises UnknownQuery, and LakeError for one that DuckDB refuses.
    """
    sql = query_named(query).sql if _NAME.fullmatch(query) else query
    if bucket:
        found = BucketLake(bucket, S3Access.from_environment()).query(sql)
    else:
        found = Lake(Settings.read().lake).query(sql)
    match form:
        case Form.TABLE:
            _print_table(out, found, rows)
        case Form.JSON:
            lines = (json.dumps(plain(row), ensure_ascii=False) for row in found.to_pylist())
            out.file.write("[" + ",\n ".join(lines) + "]\n")
        case Form.CSV:
            writer = csv.writer(out.file, lineterminator="\n")
            writer.writerow(found.column_names)
            writer.writerows([plain(v) for v in row.values()] for row in found.to_pylist())


def _print_table(out: Console, found: pa.Table, rows: int) -> None:
    shown = found.slice(0, rows).to_pylist()
    table = Table(*found.column_names)
    for row in shown:
        table.add_row(*(cell(value) for value in row.values()))
    if Measurement.get(out, out.options.update(width=MEASURED), table).maximum <= out.width:
        out.print(table)
    else:  # too wide for this terminal: a record at a time, a column a line
        for row in shown:
            record = Table(show_header=False)
            for name, value in row.items():
                record.add_row(name, cell(value))
            out.print(record)
    if found.num_rows > rows:
        out.print(f"{rows} of {found.num_rows} rows; --rows shows more")
