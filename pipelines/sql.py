"""`windrow sql`: read-only questions to the lake."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from windrow.resources.lake import Lake
from windrow.resources.lake_schema import DATASETS
from windrow.resources.settings import Settings

CELL = 66
"""Most characters of a value; a hash fits."""
MEASURED = 100_000
"""A width that no table has."""


def list_tables(out: Console) -> None:
    """Every table, its columns and what they hold."""
    for name, dataset in DATASETS.items():
        table = Table(title=f"{name}: {dataset.description}", title_justify="left")
        for heading in ("column", "type", "meaning"):
            table.add_column(heading)
        for field in dataset.schema:
            table.add_row(field.name, str(field.type), dataset.columns[field.name])
        out.print(table)


def print_query(out: Console, query: str, rows: int) -> None:
    """The first `rows` rows of a query. Raises LakeError for one that DuckDB refuses."""
    found = Lake(Settings.read().lake).query(query)
    shown = found.slice(0, rows).to_pylist()
    table = Table(*found.column_names)
    for row in shown:
        table.add_row(*(_cell(value) for value in row.values()))
    if Measurement.get(out, out.options.update(width=MEASURED), table).maximum <= out.width:
        out.print(table)
    else:  # too wide for this terminal: a record at a time, a column a line
        for row in shown:
            record = Table(show_header=False)
            for name, value in row.items():
                record.add_row(name, _cell(value))
            out.print(record)
    if found.num_rows > rows:
        out.print(f"{rows} of {found.num_rows} rows; --rows shows more")


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= CELL else f"{text[:CELL]}…"
