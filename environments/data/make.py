"""Write the shipped problems again: ``python -m windrow.environments.data.make``.

The same seed writes the same bytes; a test compares them with the committed files.
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from windrow.environments.data.arithmetic import word_problem
from windrow.environments.data.competition import KINDS, math_rows
from windrow.environments.data.functions import humaneval_rows, mbpp_rows

SEED = 81
GSM8K_ROWS = {"train": 1000, "test": 100}
MATH_ROWS = {"train": 10, "test": 2}
MBPP_ROWS = {"train": 20, "validation": 5, "test": 15}
HUMANEVAL_ROWS = 10

Entry = dict[str, Any]


def write(folder: Path) -> None:
    """Write all files below ``folder``."""
    for name, entries in files().items():
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        (folder / name).write_text("".join(lines), encoding="utf-8")


def files() -> Mapping[str, Iterable[Entry]]:
    """File name -> its entries; every file has a generator of its own."""
    return {
        "gsm8k.jsonl": _split("main", GSM8K_ROWS, _distinct(_gsm8k_rows(_generator()), "question")),
        "math.jsonl": _math(_generator()),
        "mbpp.jsonl": _split("full", MBPP_ROWS, mbpp_rows()),
        "humaneval.jsonl": _split(
            "openai_humaneval", {"test": HUMANEVAL_ROWS}, humaneval_rows(HUMANEVAL_ROWS)
        ),
    }


def _generator() -> random.Random:
    return random.Random(SEED)  # noqa: S311 - repeatable on purpose


def _gsm8k_rows(rng: random.Random) -> Iterator[Entry]:
    while True:
        problem = word_problem(rng)
        worked = "\n".join(problem.steps)
        yield {"question": problem.question, "answer": f"{worked}\n#### {problem.answer}"}


def _math(rng: random.Random) -> Iterator[Entry]:
    for subset in KINDS:
        yield from _split(subset, MATH_ROWS, _distinct(math_rows(rng, subset), "problem"))


def _distinct(rows: Iterable[Entry], column: str) -> Iterator[Entry]:
    """The rows whose text in ``column`` was not seen before."""
    seen: set[str] = set()
    for row in rows:
        if row[column] not in seen:
            seen.add(row[column])
            yield row


def _split(config: str, sizes: Mapping[str, int], rows: Iterable[Entry]) -> Iterator[Entry]:
    """The next rows, as many for each split as asked for."""
    source = iter(rows)
    for split, size in sizes.items():
        for row in islice(source, size):
            yield {"config": config, "split": split, "row": row}


if __name__ == "__main__":
    write(Path(__file__).parent)
