"""Runs inside the sandbox: one process that forks a child for every untrusted program.

Started by bubblewrap with nothing but the standard library (and, for algebra, SymPy); never
imported by Windrow. Jobs come as JSON lines on standard input, one answer line each. Everything
untrusted happens in a child that has its limits set and whose only open file is the pipe it
reports through. The worker is process 1 of its namespace, so no child can kill or stop it.
"""

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
from functools import partial

NOBODY = 65534
REPORT_FD = 3
REPORT_BYTES = 2048
ERROR_CHARACTERS = 200

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

Report = dict[str, object]


def restricted_import(name, *arguments, **keywords):  # type: ignore[no-untyped-def]
    """The ``__import__`` a program gets: listed modules and their submodules."""
    if name.partition(".")[0] not in MODULES:
        raise ImportError(f"Module '{name}' is not allowed in sandboxed execution")
    return __import__(name, *arguments, **keywords)


def compiles(code: str) -> Report:
    try:
        compile(code, "<solution>", "exec")
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return {"passed": False, "error": describe(error)}
    return {"passed": True, "error": None}


def runs(program: str) -> Report:
    """Run one program in fresh globals; whatever it raises, BaseException included, fails it."""
    table = {name: getattr(builtins, name) for name in BUILTINS}
    table["__import__"] = restricted_import
    try:
        exec(compile(program, "<solution>", "exec"), {"__builtins__": table})  # noqa: S102
    except BaseException as error:  # noqa: BLE001 - anything at all may be raised here
        return {"passed": False, "error": describe(error)}
    return {"passed": True, "error": None}


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
        return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
    except BaseException:  # noqa: BLE001 - a program may define what its errors print
        return "error without a text"


def in_child(work: Callable[[], Report], limits: dict[str, int]) -> Report:
    """Do ``work`` in a forked child under its limits and return its report."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        confine(limits, writer)
        os.write(REPORT_FD, json.dumps(work()).encode()[:REPORT_BYTES])
        os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + limits["wall_seconds"]
    text, stopped = read_report(reader, deadline)
    os.close(reader)
    status, usage = end(child, 0 if stopped else deadline - time.monotonic())
    stopped = stopped or time.monotonic() >= deadline
    code = os.waitstatus_to_exitcode(status)
    used = usage.ru_utime + usage.ru_stime
    if stopped or code == -signal.SIGXCPU or used >= limits["cpu_seconds"]:
        return {"passed": False, "error": "Timeout"}
    if code != 0:
        return {"passed": False, "error": f"ended with status {code}"}
    return parse_report(text)


def confine(limits: dict[str, int], writer: int) -> None:
    """No files, processes or threads of its own; little memory and time; no way to the worker."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.dup2(writer, REPORT_FD)
    os.closerange(REPORT_FD + 1, 64)
    cpu = limits["cpu_seconds"]
    for limit, value in (
        (resource.RLIMIT_AS, (limits["memory_bytes"],) * 2),
        (resource.RLIMIT_CPU, (cpu, cpu + 1)),
        (resource.RLIMIT_NOFILE, (64, 64)),
        (resource.RLIMIT_NPROC, (0, 0)),
        (resource.RLIMIT_FSIZE, (0, 0)),
        (resource.RLIMIT_CORE, (0, 0)),
    ):
        resource.setrlimit(limit, value)


def read_report(reader: int, deadline: float) -> tuple[bytes, bool]:
    """The child's report and whether the child must be stopped. Ends the worker if Windrow left."""
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
            if len(text) > REPORT_BYTES:
                return b"", True
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


def parse_report(text: bytes) -> Report:
    """A child that broke out of its built-ins may write anything: take only what is well formed."""
    try:
        report = json.loads(text)
        error = report["error"]
        return {
            "passed": report["passed"] is True,
            "error": None if error is None else str(error)[:ERROR_CHARACTERS],
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"passed": False, "error": "ended without a report"}


def answer(job: dict[str, object], limits: dict[str, int]) -> dict[str, object]:
    match job:
        case {"left": str(left), "right": str(right)}:
            return in_child(partial(equal, left, right), limits)
        case {"code": str(code), "tests": list(tests)}:
            syntax = in_child(partial(compiles, code), limits)
            if not syntax["passed"]:
                return {"syntax": syntax, "tests": []}
            programs = [f"{code}\n\n{test}" for test in tests]
            reports = [in_child(partial(runs, program), limits) for program in programs]
            return {"syntax": syntax, "tests": reports}
        case _:
            raise ValueError("no such job")


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
    gc.collect()
    gc.freeze()
    trial = in_child(partial(runs, "import math\nassert math.floor(1.5) == 1"), limits)
    if not trial["passed"]:
        sys.exit(f"a harmless program failed: {trial['error']}")
    print("ready", flush=True)  # noqa: T201 - the answer stream
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), limits)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
