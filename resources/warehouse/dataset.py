"""What a dataset of the lake is: a name, and columns with their types and meanings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa


@dataclass(frozen=True)
class Dataset:
    """One dataset. schema: Arrow, every column may be null; columns: what each of them means.

    made_by: asset that makes a window's rows, None where no asset can make them again.
    """

    name: str
    description: str
    schema: pa.Schema
    columns: Mapping[str, str]
    made_by: str | None = None

    def table(self, rows: Iterable[Mapping[str, object]]) -> pa.Table:
        """Rows as a table. Raises ValueError where a row's names are not exactly the columns."""
        rows = list(rows)
        for row in rows:
            if wrong := row.keys() ^ self.columns.keys():
                raise ValueError(f"a row of {self.name} lacks or adds {', '.join(sorted(wrong))}")
        return pa.Table.from_pylist(rows, schema=self.schema)


def dataset(
    name: str,
    description: str,
    columns: Mapping[str, tuple[pa.DataType, str]],
    made_by: str | None = None,
) -> Dataset:
    """A dataset from the type and meaning of each of its columns."""
    schema = pa.schema([(column, kind) for column, (kind, _) in columns.items()])
    meanings = {column: meaning for column, (_, meaning) in columns.items()}
    return Dataset(name, description, schema, MappingProxyType(meanings), made_by)
