"""Warm sandbox workers, and the two questions they answer about untrusted text."""

import json
import os
import queue
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from windrow.environments.errors import SandboxError, SandboxUnavailable
from windrow.environments.sandbox import bubblewrap, interpreter
from windrow.environments.sandbox.interpreter import Interpreter
from windrow.environments.sandbox.seccomp import filter_program

START_SECONDS = 120.0
GRACE_SECONDS = 10.0
CLOSE_SECONDS = 2.0
ANSWER_BYTES = 1 << 22
ATTEMPTS = 2
OUT_OF_MEMORY = "MemoryError"
STOPPED = (OUT_OF_MEMORY, "Timeout", "ended ")
"""How the error of a process begins that a limit of the sandbox ended."""


@dataclass(frozen=True)
class Limits:
    """What the tests of one candidate may use.

    cpu_seconds: processor time of one test; the network's alarm rings after 5 s (§12.6). Counting
        processor time keeps a busy machine from failing honest code.
    wall_seconds: time of one test, a backstop for programs that wait instead of computing.
    spare_seconds: what all tests of a candidate together may use beyond that; the network's 30 s.
        It stops programs that the alarm does not.
    memory_bytes: address space.
    """

    cpu_seconds: int = 5
    wall_seconds: int = 15
    spare_seconds: int = 30
    memory_bytes: int = 1 << 30


@dataclass(frozen=True)
class TestOutcome:
    """How one test program ended; error is None when it passed."""

    __test__ = False  # not a pytest class

    passed: bool
    error: str | None


@dataclass(frozen=True)
class CodeOutcome:
    """How one candidate did: whether it compiles, and each test if it does."""

    compiles: bool
    tests: tuple[TestOutcome, ...]


class Sandbox:
    """Runs untrusted programs and algebra, each in a throw-away process of a bubblewrap sandbox.

    Nothing starts before it is needed. Safe to share between threads. A worker that ends is
    replaced; a job that ends two fresh workers is answered as failed.
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        *,
        python: Path | None = None,
        any_python: bool = False,
    ) -> None:
        """workers: processes per kind of job, by default one per processor, at most four. python:
        executable that runs programs and algebra, None to search for one of the network's version.
        any_python: also run them under another version."""
        size = workers or min(4, os.cpu_count() or 1)
        limits = limits or Limits()
        self._python = python
        self._any_python = any_python
        self._programs = _Pool("programs", (), size, limits, self._checked_python)
        self._algebra = _Pool("algebra", ("sympy", "mpmath"), size, limits, self._checked_python)

    @property
    def python(self) -> Interpreter:
        """The Python for programs and algebra, its version unchecked. Raises
        ProgramPythonUnavailable where the one that was named cannot be used."""
        return interpreter.find(self._python)

    def _checked_python(self) -> Interpreter:
        if not self._any_python:
            interpreter.check_version(self.python)
        return self.python

    def check(self) -> None:
        """Start a worker. Raises SandboxUnavailable, saying what the machine lacks."""
        self._programs.check()

    def run_tests(self, code: Sequence[str], tests: Sequence[str]) -> list[CodeOutcome]:
        """Run every test after every candidate in ``code``, each in fresh globals (§12.6).

        The tests of a candidate share a process; a candidate that ends it has passed none. Raises
        SandboxUnavailable or SandboxError, never because of what a candidate does.
        """
        jobs = [{"code": text, "tests": list(tests)} for text in code]
        return [_code_outcome(answer, len(tests)) for answer in self._programs.ask_all(jobs)]

    def algebraically_equal(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Whether SymPy parses both texts of a pair and their difference simplifies to zero.

        SymPy splits a text into tokens as its Python does, so the version matters here too.

        A text that raises is equal to nothing. None where a text hangs or exhausts memory, for the
        limits are the sandbox's own. Raises SandboxUnavailable or SandboxError.
        """
        jobs = [{"left": left, "right": right} for left, right in pairs]
        return [_algebra_outcome(answer) for answer in self._algebra.ask_all(jobs)]

    def close(self) -> None:
        """End all workers; a later call starts new ones."""
        self._programs.close()
        self._algebra.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _algebra_outcome(answer: dict[str, Any] | None) -> bool | None:
    """None where the process ended without an answer of its own."""
    if answer is None or str(answer["error"]).startswith(STOPPED):
        return None
    return bool(answer["passed"])


def _code_outcome(answer: dict[str, Any] | None, tests: int) -> CodeOutcome:
    if answer is None:
        return CodeOutcome(True, (TestOutcome(False, "ended the sandbox"),) * tests)
    outcomes = (TestOutcome(report["passed"], report["error"]) for report in answer["tests"])
    return CodeOutcome(answer["syntax"]["passed"], tuple(outcomes))


class _Pool:
    """A fixed number of slots, each holding a running worker or None until one is needed."""

    def __init__(
        self,
        role: str,
        packages: Sequence[str],
        size: int,
        limits: Limits,
        python: Callable[[], Interpreter],
    ) -> None:
        self._size = size
        self._limits = limits
        self._start: Callable[[], _Worker] = lambda: _Worker(role, packages, limits, python())
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._slots.put(None)

    def check(self) -> None:
        with self._slot() as slot:
            slot.worker = slot.worker or self._start()

    def ask_all(self, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None]:
        """Answers in order; None for a job that ended every worker it was given to."""
        with ThreadPoolExecutor(self._size) as threads:
            return list(threads.map(self._ask, jobs))

    def close(self) -> None:
        workers = [self._slots.get() for _ in range(self._size)]
        for worker in workers:
            if worker is not None:
                worker.close()
            self._slots.put(None)

    def _ask(self, job: dict[str, Any]) -> dict[str, Any] | None:
        tests = len(job.get("tests", ())) or 1
        limits = self._limits
        timeout = tests * limits.wall_seconds + limits.spare_seconds + GRACE_SECONDS
        with self._slot() as slot:
            for _ in range(ATTEMPTS):
                slot.worker = slot.worker or self._start()
                try:
                    return slot.worker.ask(job, timeout)
                except _WorkerLostError:
                    slot.worker.close()
                    slot.worker = None
        return None

    @contextmanager
    def _slot(self) -> Iterator["_Slot"]:
        slot = _Slot(self._slots.get())
        try:
            yield slot
        finally:
            self._slots.put(slot.worker)


@dataclass
class _Slot:
    worker: "_Worker | None"


class _WorkerLostError(SandboxError):
    """A worker ended or stopped answering."""


class _Worker:
    """One sandbox: a bubblewrap process and the pipes to the worker inside."""

    def __init__(
        self, role: str, packages: Sequence[str], limits: Limits, python: Interpreter
    ) -> None:
        self._buffer = b""
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        with _memory_file(filter_program()) as filter_fd:
            job = role, json.dumps(asdict(limits))
            interpreter.compile_packages(python, packages)
            arguments = bubblewrap.command(job, packages, filter_fd, python)
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                pass_fds=(filter_fd,),
                bufsize=0,
            )
        try:
            self._line(START_SECONDS)
        except _WorkerLostError as error:
            complaint = self._complaint()
            self.close()
            raise SandboxUnavailable(
                f"the sandbox does not start with {arguments[0]}: {complaint}; bubblewrap needs "
                "root with CAP_SYS_ADMIN or unprivileged user namespaces (sysctl "
                "kernel.unprivileged_userns_clone=1, on Ubuntu also "
                "kernel.apparmor_restrict_unprivileged_userns=0), or choose an environment that "
                "runs no programs (gsm8k)"
            ) from error

    def ask(self, job: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer to one job. Raises _WorkerLostError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
        except BrokenPipeError as error:
            raise _WorkerLostError("the sandbox worker has ended") from error
        answer: dict[str, Any] = json.loads(self._line(timeout))
        return answer

    def close(self) -> None:
        """End the sandbox: the worker leaves when its input closes and takes all within along."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._complaints.close()

    def _line(self, timeout: float) -> bytes:
        """The next line, without its end. Raises _WorkerLostError."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not selector.select(remaining):
                    raise _WorkerLostError(f"the sandbox worker gave no answer in {timeout:.0f} s")
                chunk = self._process.stdout.read(1 << 16)
                if not chunk or len(self._buffer) > ANSWER_BYTES:
                    raise _WorkerLostError("the sandbox worker has ended")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _complaint(self) -> str:
        self._complaints.seek(0)
        text = self._complaints.read(4096).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "it ended without a word"


@contextmanager
def _memory_file(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("windrow-seccomp")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
