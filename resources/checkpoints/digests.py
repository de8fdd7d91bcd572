"""Digests of files, computed once in a process for as long as the files stay as they are.

A run asks for its checkpoint in four steps and verifies it each time; of gigabytes of weights only
the first time should cost.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

SETTLED_NS: Final = 100_000_000
"""Age from which a file counts. Two writes within one tick of a disk's clock leave one time stamp,
so that a younger file could change unseen."""

MOST: Final = 1024
"""Digests kept; a checkpoint has about twenty."""

_State = tuple[int, int, int, int, int]
_known: dict[tuple[str, tuple[_State, ...]], str] = {}


def digest_once(kind: str, paths: Sequence[Path], compute: Callable[[], str]) -> str:
    """compute(), or what it gave for the same files of the same kind of digest.

    Files are the same while device, inode, size and both time stamps are; whoever can forge these
    can change this process's memory too. Raises FileNotFoundError, and as compute.
    """
    key = (kind, _states(paths))
    found = _known.get(key)
    if found is not None:
        return found
    digest = compute()
    newest = max((max(state[3:]) for state in key[1]), default=0)
    if key[1] == _states(paths) and newest < time.time_ns() - SETTLED_NS:
        if len(_known) >= MOST:
            _known.clear()
        _known[key] = digest
    return digest


def _states(paths: Sequence[Path]) -> tuple[_State, ...]:
    stats = [path.stat() for path in paths]
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats)
