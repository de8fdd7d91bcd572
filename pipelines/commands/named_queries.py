"""The questions `windrow sql` knows by name: one SELECT a file in `queries/`.

A file begins with comment lines: what it answers, then `-- column: meaning` for every column.
"""

import difflib
from dataclasses import dataclass
from importlib import resources

from windrow.resources.warehouse.files import LakeError
from windrow.resources.warehouse.summaries import TABLES


class UnknownQuery(LakeError):
    """No query has this name."""


@dataclass(frozen=True)
class NamedQuery:
    """answers: what it says, a sentence. columns: meanings by column, in order."""

    name: str
    answers: str
    columns: dict[str, str]
    sql: str


def named_queries() -> dict[str, NamedQuery]:
    """Every named query, by name."""
    folder = resources.files("windrow.pipelines.commands") / "queries"
    files = sorted((file for file in folder.iterdir()), key=lambda file: file.name)
    queries = [
        _parsed(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".sql")
    ]
    return {query.name: query for query in queries}


def query_named(name: str) -> NamedQuery:
    """The query; raises UnknownQuery, which names the closest."""
    queries = named_queries()
    if name in queries:
        return queries[name]
    close = difflib.get_close_matches(name, [*queries, *TABLES], n=1, cutoff=0.5)
    if not close:
        hint = f"There are {', '.join(queries)}"
    elif close[0] in queries:
        hint = f"Did you mean {close[0]}?"
    else:
        hint = f"{close[0]} is a table: give a SELECT, for instance 'FROM {close[0]} LIMIT 10'"
    raise UnknownQuery(f"No query is called {name!r}. {hint}")


def _parsed(name: str, text: str) -> NamedQuery:
    lines = text.splitlines()
    count = next(n for n, line in enumerate(lines) if not line.startswith("-- "))
    answers, *meanings = (line.removeprefix("-- ") for line in lines[:count])
    columns = dict(line.split(": ", 1) for line in meanings)
    return NamedQuery(name, answers, columns, "\n".join(lines[count:]))
