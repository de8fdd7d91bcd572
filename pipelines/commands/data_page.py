"""The reference half of docs/data.md, made from the datasets and the named queries.

`python -m windrow.pipelines.commands.data_page docs/data.md` brings the page up to date: what is
above the mark stays, what is below it is made anew.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from windrow.pipelines.commands.named_queries import named_queries
from windrow.resources.warehouse.dataset import Dataset
from windrow.resources.warehouse.schema import DATASETS
from windrow.resources.warehouse.summaries import SUMMARIES

MARK = (
    "<!-- From here on made by `python -m windrow.pipelines.commands.data_page docs/data.md`. -->\n"
)


def updated(page: str) -> str:
    """A page with its reference half made anew."""
    return page.partition(MARK)[0] + MARK + reference()


def reference() -> str:
    """Every table and every named query with its columns, Markdown."""
    parts = ["\n## Tables\n", *map(_columns, DATASETS.values())]
    parts.append("## Summaries\n")
    parts += [_columns(made.rows, f", made from {made.of}") for made in SUMMARIES.values()]
    parts.append("## Named queries\n")
    for query in named_queries().values():
        columns = [(f"`{column}`", meaning) for column, meaning in query.columns.items()]
        parts.append(f"### {query.name}\n\n{query.answers}\n")
        parts.append(_table(("column", "meaning"), columns))
    return "\n".join(parts)


def _columns(rows: Dataset, origin: str = "") -> str:
    table = [
        (f"`{field.name}`", _type(str(field.type)), rows.columns[field.name])
        for field in rows.schema
    ]
    about = rows.description[0].upper() + rows.description[1:] + origin
    return f"### {rows.name}\n\n{about}.\n\n" + _table(("column", "type", "meaning"), table)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _type(arrow: str) -> str:
    names = {"element: ": "", "item: ": "", "float": "float32", "double": "float64"}
    for name, plain in names.items():
        arrow = arrow.replace(name, plain)
    return arrow


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
