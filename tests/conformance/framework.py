"""Which vector files have a handler, and the cases each handler draws from its file.

A handler is a generator registered for the files it reads::

    @handles("grail/prf.json")
    def prf(file: VectorFile) -> Iterator[Case]:
        for index, case in enumerate(file.load_json()["cases"]):
            yield Case(f"case-{index}", partial(check_prf, case))

Drawing a case must be cheap; the work belongs in its ``check``, which runs as a test of its own.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NOT_VECTORS = frozenset({"README.md", "SHA256SUMS"})


class Case(NamedTuple):
    """One measured case: its name within the file and a check that raises if it does not hold."""

    id: str
    check: Callable[[], None]


@dataclass(frozen=True)
class VectorFile:
    """One vector file. ``root`` is the folder given as --vectors, ``name`` the path below it."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        return self.root / self.name

    @property
    def folder(self) -> Path:
        """Where the file's companions lie (tensors, parquet files, a bucket)."""
        return self.path.parent

    def load_json(self) -> dict[str, Any]:
        return json.loads(self.path.read_bytes())


Handler = Callable[[VectorFile], Iterator[Case]]


@dataclass(frozen=True)
class Registration:
    pattern: str
    uses: tuple[str, ...]
    handler: Handler


@dataclass
class Registry:
    """The handlers known, and what they make of a folder of vectors."""

    registrations: list[Registration] = field(default_factory=list)
    broken: list[Case] = field(default_factory=list)

    def handles(self, pattern: str, *, uses: Sequence[str] = ()) -> Callable[[Handler], Handler]:
        """Register a handler for every file whose path below the root matches ``pattern``.

        ``*`` also matches across folders. ``uses`` names companion files that the handler reads,
        so that they count as handled.
        """

        def register(handler: Handler) -> Handler:
            self.registrations.append(Registration(pattern, tuple(uses), handler))
            return handler

        return register

    def report_broken(self, module: str, error: Exception) -> None:
        """Turn a handler module that cannot be imported into one failing case."""
        self.broken.append(Case(f"{module}.py::import", _raiser(error)))

    def cases(self, root: Path) -> Iterator[Case]:
        """Every case below ``root``, named ``folder/file::case``."""
        yield from self.broken
        names = vector_names(root)
        for registration in self.registrations:
            for name in names:
                if fnmatchcase(name, registration.pattern):
                    yield from _draw(registration.handler, VectorFile(root, name))

    def collected(self, root: Path) -> list[Case]:
        """Every case below ``root``; a folder that has none is not the one that was meant."""
        cases = list(self.cases(root))
        if not cases:
            raise pytest.UsageError(
                f"--vectors: {root} holds no file that a handler reads; name the folder that has "
                "one sub-folder a network"
            )
        return cases

    def unhandled(self, root: Path) -> list[str]:
        """Files below ``root`` that no handler reads."""
        names = vector_names(root)
        patterns: set[str] = set()
        for registration in self.registrations:
            if any(fnmatchcase(name, registration.pattern) for name in names):
                patterns.update((registration.pattern, *registration.uses))
        return [name for name in names if not any(fnmatchcase(name, p) for p in patterns)]


def vector_names(root: Path) -> list[str]:
    """Paths below ``root`` of every file that may hold vectors, sorted; links are followed."""
    return sorted(
        Path(folder, name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name not in NOT_VECTORS
    )


def _draw(handler: Handler, file: VectorFile) -> Iterator[Case]:
    """The handler's cases. A file it cannot read, or finds nothing in, is a failing case."""
    empty = True
    try:
        for case in handler(file):
            empty = False
            yield Case(f"{file.name}::{case.id}", case.check)
    except Exception as error:  # noqa: BLE001 - reported as a case: one bad file must not stop the rest
        yield Case(f"{file.name}::unreadable", _raiser(error))
        return
    if empty:
        nothing = AssertionError(f"{file.path} holds no case that its handler knows")
        yield Case(f"{file.name}::empty", _raiser(nothing))


def each(file: VectorFile, check: Callable[[Any, Any], None]) -> Iterator[Case]:
    """The cases of a file that lists them as `id`, `in` and `out`."""
    for case in file.load_json()["cases"]:
        yield Case(case["id"], partial(check, case["in"], case["out"]))


def _raiser(error: Exception) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


def number(value: float | str) -> float:
    """A float as vectors write it: nan, inf and -inf are strings."""
    return float(value)


def assert_close(
    actual: Sequence[float],
    expected: Sequence[float | str],
    *,
    rel: float = 1e-9,
    abs_: float = 0.0,
) -> None:
    """Compare number sequences of equal length; nan equals nan."""
    assert len(actual) == len(expected), f"{len(actual)} values, expected {len(expected)}"
    for index, (mine, theirs) in enumerate(zip(actual, map(number, expected), strict=True)):
        same = math.isnan(mine) if math.isnan(theirs) else False
        assert same or math.isclose(mine, theirs, rel_tol=rel, abs_tol=abs_), (
            f"value {index} is {mine!r}, expected {theirs!r}"
        )


REGISTRY = Registry()
handles = REGISTRY.handles
