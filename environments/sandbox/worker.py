"""Runs inside the sandbox: one process that forks a child for every untrusted job.

Started by bubblewrap with nothing but the standard library (and, for algebra, SymPy); never
imported by Windrow. The interpreter may be another than Windrow's: Python 3.11 or later. Jobs come
as JSON lines on standard input, one answer line each. Everything untrusted happens in a child that
has its limits set and whose only open file is the pipe it reports through. The worker is process 1
of its namespace, so no child can kill or stop it.

docs/programs.md lists what a program inherits from its host, here and on the network.
"""

import __future__

import builtins
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from types import FrameType

NOBODY = 65534
REPORT_FD = 3
REPORT_BYTES = 4096
ERROR_CHARACTERS = 200
NO_REPORT = "ended without a report"
OPEN_FILES = 256

# grail-protocol §12.6: what a program finds as its built-ins and may import.
BUILTINS = (  # noqa: SIM905 - the list reads better as text
    "AssertionError BaseException Exception False IndexError KeyError None StopIteration True "
    "TypeError ValueError ZeroDivisionError __build_class__ abs all any bin bool bytearray bytes "
    "chr complex dict divmod enumerate filter float format frozenset hex int isinstance len list "
    "map max min object oct ord pow print range repr reversed round set slice sorted str sum "
    "tuple type zip"
).split()
MODULES = frozenset(
    ["math", "itertools", "functools", "collections", "heapq", "bisect", "operator", "re", "string"]
)

COMPILE_FLAGS = __future__.annotations.compiler_flag
"""The network's module postpones annotations, and what it compiles inherits that (§12.6)."""

RECURSION_LIMIT = 1000
NETWORK_FRAMES = 8
"""Frames below a program in the network's pool: six of a spawned pool process, two of its job. An
estimate: f(950) was measured to return there, and f(1000) to be too deep."""

Report = dict[str, object]


class Timeout(Exception):
    """Raised inside a program whose time for one test is over, as the network's alarm does.

    A program can catch it and go on, until the time of the whole job is over.
    """


def restricted_import(name, *arguments, **keywords):  # type: ignore[no-untyped-def]
    """The ``__import__`` a program gets: listed modules and their submodules."""
    if name.partition(".")[0] not in MODULES:
        raise ImportError(f"Module '{name}' is not allowed in sandboxed execution")
    return __import__(name, *arguments, **keywords)


def compiled(program: str):  # type: ignore[no-untyped-def]
    """The code object of a program, whatever flags this module was compiled with itself."""
    return compile(
        program, "<solution>", "exec", flags=COMPILE_FLAGS, dont_inherit=True, optimize=0
    )


def compiles(code: str) -> Report:
    try:
        compiled(code)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return {"passed": False, "error": describe(error)}
    return {"passed": True, "error": None}


def runs(program: str, cpu_seconds: float, wall_seconds: float) -> Report:
    """Run one program in fresh globals; whatever it raises, BaseException included, fails it."""
    table = {name: getattr(builtins, name) for name in BUILTINS}
    table["__import__"] = restricted_import
    try:
        code = compiled(program)
        set_alarm(cpu_seconds, wall_seconds)
        try:
            exec(code, {"__builtins__": table})  # noqa: S102 - what the sandbox is for
        finally:
            set_alarm(0, 0)
    except BaseException as error:  # noqa: BLE001 - anything at all may be raised here
        return {"passed": False, "error": describe(error)}
    return {"passed": True, "error": None}


def set_alarm(cpu_seconds: float, wall_seconds: float) -> None:
    """Raise Timeout after that much time, once; 0 and 0 cancel it."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)


def ring(_number: int, _frame: FrameType | None) -> None:
    """The handler of both timers."""
    set_alarm(0, 0)
    raise Timeout


def equal(left: str, right: str) -> Report:
    """Whether SymPy parses both texts and simplifies their difference to zero (§12.4)."""
    from sympy import simplify
    from sympy.parsing.sympy_parser import parse_expr

    try:
        same = bool(simplify(parse_expr(left) - parse_expr(right)) == 0)
    except BaseException as error:  # noqa: BLE001 - parse_expr evaluates the text
        return {"passed": False, "error": describe(error)}
    return {"passed": same, "error": None}


def describe(error: BaseException) -> str:
    try:
        if isinstance(error, Timeout):
            return "Timeout"
        return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
    except BaseException:  # noqa: BLE001 - a program may define what its errors print
        return "error without a text"


def judge(code: str, tests: list[str], limits: dict[str, int]) -> None:
    """Report whether the code compiles, then each test of it, all in this process.

    As on the network, each test has fresh globals and shares modules with those before it.
    """
    signal.signal(signal.SIGPROF, ring)
    signal.signal(signal.SIGALRM, ring)
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - a program's, for as long as it lives
    sys.argv = [""]
    sys.setrecursionlimit(RECURSION_LIMIT - NETWORK_FRAMES + frames())
    syntax = compiles(code)
    send(syntax)
    if not syntax["passed"]:
        return
    for test in tests:
        send(runs(f"{code}\n\n{test}", limits["cpu_seconds"], limits["wall_seconds"]))


def frames() -> int:
    """Count the frames below a program that the caller runs: its own, those below, and `runs`."""
    frame, count = sys._getframe().f_back, 1
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


def send(report: Report) -> None:
    """Write one line of at most REPORT_BYTES."""
    line = json.dumps(report).encode()[: REPORT_BYTES - 1] + b"\n"
    while line:
        line = line[os.write(REPORT_FD, line) :]


def in_child(
    work: Callable[[], None], *, reports: int, cpu: int, wall: int, memory: int
) -> tuple[list[bytes], str | None]:
    """Do ``work`` in a forked child: the lines it sent, and what ended it early if anything did.

    reports: most lines. cpu, wall: seconds. memory: bytes of address space.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            confine(writer, cpu, memory)
            work()
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    deadline = time.monotonic() + wall
    text, stopped = read_reports(reader, reports * REPORT_BYTES, deadline)
    os.close(reader)
    status, usage = end(child, 0 if stopped else deadline - time.monotonic())
    stopped = stopped or time.monotonic() >= deadline
    ending = os.waitstatus_to_exitcode(status)
    used = usage.ru_utime + usage.ru_stime
    lines = text.splitlines()
    if stopped or ending == -signal.SIGXCPU or used >= cpu:
        return lines, "Timeout"
    return lines, f"ended with status {ending}" if ending else None


def confine(writer: int, cpu: int, memory: int) -> None:
    """No files, processes or threads of its own; little memory and time; no way to the worker."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.dup2(writer, REPORT_FD)
    os.closerange(REPORT_FD + 1, OPEN_FILES)
    for limit, value in (
        (resource.RLIMIT_AS, (memory, memory)),
        (resource.RLIMIT_CPU, (cpu, cpu + 1)),
        (resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES)),
        (resource.RLIMIT_NPROC, (0, 0)),
        (resource.RLIMIT_FSIZE, (0, 0)),
        (resource.RLIMIT_CORE, (0, 0)),
    ):
        resource.setrlimit(limit, value)


def read_reports(reader: int, most: int, deadline: float) -> tuple[bytes, bool]:
    """What the child sent and whether it must be stopped. Ends the worker if Windrow left."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(sys.stdin.fileno(), 0)  # reports a hang-up only
    text = b""
    while (remaining := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(remaining * 1000):
            if descriptor != reader:
                os._exit(0)
            chunk = os.read(reader, REPORT_BYTES)
            if not chunk:
                return text, False
            text += chunk
            if len(text) > most:
                return text, True
    return text, True


def end(child: int, patience: float) -> tuple[int, resource.struct_rusage]:
    """Wait at most about ``patience`` seconds, then kill: the exit status and resources used."""
    ended, status, usage = os.wait4(child, os.WNOHANG)
    while not ended and signal.sigtimedwait({signal.SIGCHLD}, max(0.0, patience)):
        ended, status, usage = os.wait4(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    return status, usage


def parse_report(line: bytes) -> Report:
    """A child that broke out of its built-ins may write anything: take only what is well formed."""
    try:
        report = json.loads(line)
        error = report["error"]
        return {
            "passed": report["passed"] is True,
            "error": None if error is None else str(error)[:ERROR_CHARACTERS],
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"passed": False, "error": NO_REPORT}


def answer(job: dict[str, object], limits: dict[str, int]) -> dict[str, object]:
    match job:
        case {"left": str(left), "right": str(right)}:
            return algebra(left, right, limits)
        case {"code": str(code), "tests": list(tests)}:
            return programs(code, tests, limits)
        case _:
            raise ValueError("no such job")


def algebra(left: str, right: str, limits: dict[str, int]) -> Report:
    lines, ended = in_child(
        lambda: send(equal(left, right)),
        reports=1,
        cpu=limits["cpu_seconds"],
        wall=limits["wall_seconds"],
        memory=limits["memory_bytes"],
    )
    if ended or not lines:
        return {"passed": False, "error": ended or NO_REPORT}
    return parse_report(lines[0])


def programs(code: str, tests: list[str], limits: dict[str, int]) -> dict[str, object]:
    """A child that does not reach its end has passed no test, as on the network."""
    lines, ended = in_child(
        lambda: judge(code, tests, limits),
        reports=1 + len(tests),
        cpu=len(tests) * limits["cpu_seconds"] + limits["spare_seconds"],
        wall=len(tests) * limits["wall_seconds"] + limits["spare_seconds"],
        memory=limits["memory_bytes"],
    )
    syntax = parse_report(lines[0]) if lines else {"passed": False, "error": ended or NO_REPORT}
    if not syntax["passed"]:
        return {"syntax": syntax, "tests": []}
    if ended or len(lines) != 1 + len(tests):
        lost = {"passed": False, "error": ended or NO_REPORT}
        return {"syntax": syntax, "tests": [lost] * len(tests)}
    return {"syntax": syntax, "tests": [parse_report(line) for line in lines[1:]]}


def give_up_root() -> None:
    """Become nobody for good; outside, the worker was started by root or already is nobody."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        os.setuid(0)
    except OSError:
        return
    sys.exit("the sandbox worker could become root again")


def main() -> None:
    """argv: "programs" or "algebra", then the limits as JSON."""
    role, limits = sys.argv[1], json.loads(sys.argv[2])
    give_up_root()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored by process 1, unlike Python's handler
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # so that end() can wait for it
    if role == "algebra":
        sys.path.append("/packages")
        equal("x + 1", "1 + x")  # imports SymPy and fills its caches before the first fork
    for module in MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()
    trial = programs("import math", ["assert math.floor(1.5) == 1"], limits)
    if trial["tests"] != [{"passed": True, "error": None}]:
        sys.exit(f"a harmless program failed: {trial}")
    print("ready", flush=True)  # noqa: T201 - the answer stream
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), limits)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
