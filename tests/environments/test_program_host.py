"""What a program inherits from the process that runs it: docs/programs.md, line by line."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windrow.environments import programming
from windrow.environments.errors import SandboxUnavailable
from windrow.environments.sandbox import Sandbox
from windrow.environments.sandbox.interpreter import Interpreter
from windrow.environments.tasks import Task

from .pythons import EVERY_PYTHON

SYS = "from collections import _sys as sys\n"
"""A listed module leads to sys, here as on the network."""


@pytest.fixture(scope="module", params=EVERY_PYTHON, ids=lambda python: f"python-{python}")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    python: Interpreter = request.param
    with Sandbox(1, python=python.executable, any_python=True) as started:
        try:
            started.check()
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        yield started


def passes(sandbox: Sandbox, code: str, test: str = "assert True") -> bool:
    return sandbox.run_tests([code], [test])[0].tests[0].passed


@pytest.mark.parametrize(
    "code",
    [
        "def top(items: List[int]) -> int:\n    return max(items)",
        "def top(items) -> Optional[int]:\n    return max(items)",
        "seen: Dict[str, int] = {}\ndef top(items):\n    return max(items)",
        "def top(items):\n    best: Tuple[int] = max(items)\n    return best",
        "def top(items, key: Callable[..., Any] = None) -> 'int':\n    return max(items)",
        "def top(*items: undefined[1 / 0], **more: nothing.at.all):\n    return max(items[0])",
        "async def other(x: np.ndarray) -> pd.DataFrame: ...\ntop = max",
        "top = max\nassert (lambda: None).__annotations__ == {}",
        "z = []\ndef top(items: z.append(1)):\n    assert not z\n    return max(items)",
        "def top(items: int):\n    assert top.__annotations__ == {'items': 'int'}\n    return 3",
    ],
)
def test_annotations_are_postponed(sandbox: Sandbox, code: str) -> None:
    task = Task("mbpp", "t_0", 0, "Give the largest.", tests=("assert top([1, 3, 2]) == 3",))
    answer = f"so</end_working_out><SOLUTION>{code}</SOLUTION>"
    graded = programming.grade(task, [answer], "instructed", sandbox)[0]
    assert graded.success
    assert graded.reward == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("x: List = 1", "y: Dict = x\nassert y == 1"),
        ("", "def f(x: Nothing): return x\nassert f(1) == 1"),
    ],
)
def test_tests_are_compiled_as_the_code_is(sandbox: Sandbox, code: str, test: str) -> None:
    assert passes(sandbox, code, test)


@pytest.mark.parametrize(
    "code", ["def f(x: (y := 1)): pass", "def f(x: (yield)): pass", "x: (await y) = 1"]
)
def test_what_no_postponed_annotation_may_hold_does_not_compile(
    sandbox: Sandbox, code: str
) -> None:
    assert not sandbox.run_tests([code], ["assert True"])[0].compiles


@pytest.mark.parametrize(
    "code",
    [
        "v = List",
        "x: int = List",
        "def f(x=List): pass",
        "__name__",
        "__file__",
        "class A: pass",
        "globals()",
        "open('/dev/null')",
        "from __future__ import annotations",
        "import typing",
        "from . import math",
        "from .math import pi",
    ],
)
def test_what_a_program_must_not_find(sandbox: Sandbox, code: str) -> None:
    outcome = sandbox.run_tests([code], ["assert True"])[0]
    assert outcome.compiles
    assert not outcome.tests[0].passed


@pytest.mark.parametrize(
    "check",
    [
        "sys.stdin.read() == ''",
        "sys.argv == ['']",
        "sys.get_int_max_str_digits() == 4300",
        "sys.flags.optimize == 0 and __debug__",
        "sys.flags.hash_randomization == 0",
        "sys.stdout.encoding == 'utf-8'",
        "sys.gettrace() is None and sys.getprofile() is None",
        "len(str(10**4000)) == 4001",
        "'{:n}'.format(1234567.5) == '1.23457e+06'",
        "__builtins__.__class__ is dict and len(__builtins__) == 55",
    ],
)
def test_state_of_the_interpreter(sandbox: Sandbox, check: str) -> None:
    assert passes(sandbox, SYS, f"assert {check}")


def test_warnings_are_no_errors(sandbox: Sandbox) -> None:
    assert passes(sandbox, 'def f():\n    return "\\d"', 'assert f() == "\\\\d"')
    assert passes(sandbox, "x = 1", "assert (x == 2, 'always')")
    assert passes(sandbox, "x = 1", "assert x is 1 or True")


@pytest.mark.parametrize(("depth", "reached"), [(950, True), (985, True), (1000, False)])
def test_recursion_ends_where_it_does_in_the_networks_pool(
    sandbox: Sandbox, depth: int, reached: bool
) -> None:
    code = "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)"
    assert passes(sandbox, code, f"assert f({depth}) == {depth}") is reached


def test_text_has_the_same_hash_in_every_process(sandbox: Sandbox) -> None:
    code = "def f():\n    return list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})"
    orders = [[f"assert f()[0] == {letter!r}" for letter in "abcdefgh"]] * 2
    first, second = (sandbox.run_tests([code], tests)[0].tests for tests in orders)
    assert [t.passed for t in first] == [t.passed for t in second]
    assert sum(t.passed for t in first) == 1


def test_nothing_of_windrows_own_process_is_inherited(tmp_path: Path) -> None:
    """Optimisation, warnings as errors, a hash seed, a locale and a path in the environment."""
    (tmp_path / "math.py").write_text("raise SystemExit('shadowed')")
    program = """
import os, sys
from windrow.environments.sandbox import Sandbox
sys.setrecursionlimit(5000)
sys.set_int_max_str_digits(0)
os.environ["PYTHONPATH"] = os.getcwd()
tests = ["import math", "assert '\\\\d'", "assert False", "str(10**5000)", "f(2000)"]
with Sandbox(1, any_python=True) as sandbox:
    outcome = sandbox.run_tests(["def f(n): return n and f(n - 1)"], tests)[0]
print([test.passed for test in outcome.tests])
"""
    done = subprocess.run(
        [sys.executable, "-O", "-P", "-c", program],
        env=os.environ | {"PYTHONWARNINGS": "error::SyntaxWarning", "LC_ALL": "C"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "SandboxUnavailable" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stdout == "[True, True, False, False, False]\n", done.stderr
