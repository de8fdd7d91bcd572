"""Rows for the lake, quickly made."""

from typing import Any

import pyarrow as pa

from windrow.resources.warehouse.schema import DATASETS


def rows_of(dataset: str, window: int, count: int = 2, **values: Any) -> pa.Table:
    """`count` rows of a window; every column not given is null."""
    given = {"window_start": window, "hotkey": "hk"} | values
    schema = DATASETS[dataset].schema
    return pa.Table.from_pylist([given] * count, schema=schema)
