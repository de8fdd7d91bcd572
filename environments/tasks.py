"""What a problem is, and where a data set's rows come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from windrow.environments.errors import DatasetUnavailable

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One problem of one environment, ready to be asked and graded.

    env_id: canonical environment id ("gsm8k", "math", "mbpp", "humaneval").
    id: split and position, such as "train_12"; stable for one data set.
    index: position within the split.
    question: the user message.
    answer: the gold answer; empty for code.
    solution: the worked solution or reference code.
    tests: program suffixes to run after the candidate code, one per test; empty unless code.
    """

    env_id: str
    id: str
    index: int
    question: str
    answer: str = ""
    solution: str = ""
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSplit:
    """Name of one split of one public data set, as the hub spells it."""

    dataset: str
    config: str
    split: str


class TaskSource(Protocol):
    """Gives the rows of a data set split in the data set's own order and column names."""

    def rows(self, split: DatasetSplit) -> Sequence[Row]:
        """All rows. Raises DatasetUnavailable when this source does not have them."""
        ...


def text_column(row: Row, name: str) -> str:
    """A row's text. Raises DatasetUnavailable when the data set has changed its columns."""
    value = row.get(name)
    if not isinstance(value, str):
        raise DatasetUnavailable(
            f"a data set row has no text in column {name!r} (columns: {', '.join(sorted(row))}); "
            "the data set has changed, pin an earlier revision"
        )
    return value


def text_list_column(row: Row, name: str) -> list[str]:
    """A row's list of texts; a missing or null column is an empty list."""
    value = row.get(name) or []
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise DatasetUnavailable(
            f"column {name!r} of a data set row is no list of texts; the data set has changed, "
            "pin an earlier revision"
        )
    return list(value)
