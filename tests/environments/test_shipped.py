"""The shipped problems, through the code that reads the network's own data sets."""

import random
from pathlib import Path

import pytest

from windrow.environments import competition_math, gsm8k, programming
from windrow.environments.data import make
from windrow.environments.data.arithmetic import LARGEST, word_problem
from windrow.environments.errors import DatasetUnavailable
from windrow.environments.sources import SHIPPED, ShippedTasks
from windrow.environments.tasks import DatasetSplit

SOURCE = ShippedTasks()


def test_the_committed_files_are_what_the_script_writes(tmp_path: Path) -> None:
    make.write(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        assert path.read_bytes() == (SHIPPED / path.name).read_bytes(), path.name
    assert {p.name for p in tmp_path.iterdir()} == set(ShippedTasks.FILES.values())


def test_stories_are_short_and_their_steps_are_right() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        problem = word_problem(rng)
        assert len(problem.question) < 200
        assert 1 <= len(problem.steps) <= 3
        for step in problem.steps:
            expression, _, result = step.partition(" = ")
            left, sign, right = expression.split()
            a, b = int(left), int(right)
            values = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}
            assert values[sign] == int(result)
            assert 0 <= int(result) <= LARGEST
        assert int(problem.steps[-1].rpartition(" ")[2]) == problem.answer


def test_equal_generators_tell_equal_stories() -> None:
    first, second = random.Random(9), random.Random(9)
    assert [word_problem(first) for _ in range(50)] == [word_problem(second) for _ in range(50)]


def test_split_sizes() -> None:
    sizes = {name: len(gsm8k.tasks(SOURCE, name)) for name in gsm8k.SPLITS}
    assert sizes == {"train": 750, "val": 250, "test": 100}
    sizes = {name: len(competition_math.tasks(SOURCE, name)) for name in competition_math.SPLITS}
    assert sizes == {"train": 66, "val": 4, "test": 14}
    sizes = {name: len(programming.mbpp_tasks(SOURCE, name)) for name in programming.MBPP_SPLITS}
    assert sizes == {"train": 32, "validation": 8, "val": 8}
    assert len(programming.humaneval_tasks(SOURCE)) == 10


def test_a_data_set_that_is_not_shipped_is_refused() -> None:
    with pytest.raises(DatasetUnavailable, match="no problems are shipped"):
        SOURCE.rows(DatasetSplit("openai/gsm8k", "socratic", "train"))


def test_changed_columns_are_named() -> None:
    with pytest.raises(DatasetUnavailable, match="no text in column 'answer'"):
        gsm8k.task({"question": "?"}, "train", 0)
    with pytest.raises(DatasetUnavailable, match="'test_list'"):
        programming.mbpp_tests({"test_list": "assert True"})
