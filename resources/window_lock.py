"""One run at a time works on a window of a hotkey."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from windrow import WindrowError
from windrow.resources.files import naming_disk_errors
from windrow.resources.locks import file_lock


class WindowBusy(WindrowError):
    """Another run works on the same window right now."""


@contextlib.contextmanager
def window_lock(folder: Path, window: int, hotkey: str, run_id: str) -> Iterator[None]:
    """Hold a window of a hotkey for one run. Raises WindowBusy, saying which run has it.

    The lock ends with the process, however it ends; the small file left behind means nothing.
    """
    if not hotkey.isalnum():
        raise ValueError(f"{hotkey!r} is not a hotkey")
    path = folder / f"{window}-{hotkey}.lock"
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(path, wait=False))
        except BlockingIOError:
            raise WindowBusy(
                f"Window {window} of {hotkey} is being worked on by {_holder(path)}. Wait for "
                "that run, or stop it, then start this one again."
            ) from None
        holder = {"pid": os.getpid(), "run_id": run_id, "since": time.time()}
        with naming_disk_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        since = datetime.fromtimestamp(holder["since"], UTC).isoformat(timespec="seconds")
        return f"run {holder['run_id']} (process {holder['pid']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        # It took the lock a moment ago and has not said who it is yet.
        return "another run"
