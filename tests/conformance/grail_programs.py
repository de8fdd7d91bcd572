"""What the network's pool makes of programs on Python 3.12 (grail-protocol §12.6)."""

from collections.abc import Iterator
from functools import cache, partial

import pytest

from windrow.environments import programming
from windrow.environments.sandbox import Sandbox, interpreter
from windrow.environments.tasks import Task

from ._environment_rows import Data
from .framework import Case, VectorFile, handles

NEED_3_12 = frozenset(
    {
        "py312 fstring",
        "type stmt 312",
        "generic 312",
        "batched 312",
        "math.sumprod 312",
        "sum prices",
        "fstring backslash 312",
        "fstring comment 312",
        "type alias generic 312",
    }
)
"""Programs that older versions refuse, or add up in another way."""


@cache
def sandbox() -> Sandbox:
    """Programs run under the network's Python where it is installed, else under Windrow's."""
    return Sandbox(1, any_python=True)


@handles("grail/execution_py312.json")
def executions(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"{case['id']}-{index}", partial(check_execution, case))


def check_execution(case: Data) -> None:
    python = sandbox().python
    if case["id"] in NEED_3_12 and python.version < interpreter.NETWORK_VERSION:
        pytest.skip(
            "not tested: programs that need Python 3.12 (uv python install 3.12); "
            f"they run under Python {python} here"
        )
    passed, total = run(case["code"], tuple(case["tests"]))
    assert (passed, total) == (case["out"]["passed"], case["out"]["total"])


def run(code: str, tests: tuple[str, ...]) -> tuple[int, int]:
    """Tests passed and all tests, graded as an answer where an answer can say this code."""
    if code == code.strip():
        task = Task("mbpp", "t_0", 0, "", tests=tests)
        answer = f"</end_working_out><SOLUTION>{code}</SOLUTION>"
        graded = programming.grade(task, [answer], "instructed", sandbox())[0]
        return graded.tests_passed, graded.tests_total
    outcome = sandbox().run_tests([code], tests)[0]
    return sum(test.passed for test in outcome.tests), len(tests)
