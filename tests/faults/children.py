"""Window runs in processes of their own, to be frozen, killed, or made to kill themselves.

They are forked from a server that has everything imported already, so that one costs little.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import torch  # noqa: F401
import transformers.models.qwen2.modeling_qwen2  # noqa: F401

from tests.faults.runs import Home
from windrow.resources.generation.transformers_generator import TransformersGenerator  # noqa: F401
from windrow.resources.warehouse.lake import Lake

PATIENCE = 60.0
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def run(
    home: Path,
    tiny: Path,
    groups: int,
    dies_before: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Mine; with `dies_before`, end by SIGKILL when that dataset is about to be written.

    variables: settings, as `Home.make` takes them.
    """
    tempfile.tempdir = str(home)  # a killed run cleans up nothing
    if dies_before is not None:
        _die_before(dies_before)
    result = Home.make(home, tiny, **(variables or {})).mine(groups)
    if not result.success:
        raise SystemExit(1)


def _die_before(dataset: str) -> None:
    honest = Lake.write

    def write(self: Lake, name: str, *arguments: Any, **options: Any) -> Path:
        if name == dataset:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(self, name, *arguments, **options)

    Lake.write = write


@contextmanager
def started(*arguments: object) -> Iterator[ForkServerProcess]:
    """A process at `run`, with its arguments; none outlives the block."""
    child = SERVER.Process(target=run, args=arguments)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def wait_until(happened: Callable[[], bool]) -> None:
    """Look often until it has; a test that waits for ever fails."""
    end = monotonic() + PATIENCE
    while not happened():
        assert monotonic() < end, "nothing happened"
        sleep(0.005)
