"""Where a window's metrics go besides the lake: Weights & Biases, or nowhere.

W&B's client runs in a process of its own, for as long as one window's numbers take: it starts
threads and servers, and at the end of its process it can wait for the network without end. Here
it has a time limit, knows no key but its own, and takes nothing down with it.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final, Protocol

from windrow import WindrowError
from windrow.resources.secret import Secret
from windrow.resources.tracking.metrics import WindowMetrics

SECONDS: Final = 60.0
WITHHELD: Final = ("WINDROW_", "BT_", "R2_", "AWS_", "GRAIL_")
"""Variables W&B has no business with: keys of wallets and buckets are among them."""


class TrackingFailed(WindrowError):
    """Metrics did not reach the tracker. They are in the lake all the same."""


class Tracker(Protocol):
    """Takes every window's metrics."""

    def log(self, metrics: WindowMetrics) -> None:
        """Raises TrackingFailed."""
        ...


class NoTracker:
    """The lake is all."""

    def log(self, metrics: WindowMetrics) -> None:
        """Nothing."""


class WandbTracker:
    """One W&B run for everything a hotkey does in one role, whatever process does it."""

    def __init__(
        self,
        folder: Path,
        *,
        project: str,
        entity: str | None = None,
        mode: str = "online",
        api_key: Secret | None = None,
        seconds: float = SECONDS,
    ) -> None:
        """folder: W&B's files; offline runs lie under it, for `wandb sync`. mode: online, offline
        or disabled. api_key: None for the one that `wandb login` left. seconds: for one window."""
        self._folder = folder
        self._project = project
        self._entity = entity
        self._mode = mode
        self._api_key = api_key
        self._seconds = seconds

    def log(self, metrics: WindowMetrics) -> None:
        if self._mode == "disabled":
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        owner = f"{metrics.role}:{metrics.hotkey}:{self._project}"
        message = {
            "project": self._project,
            "entity": self._entity,
            "mode": self._mode,
            "folder": str(self._folder),
            "run": hashlib.sha256(owner.encode()).hexdigest()[:16],
            "metrics": asdict(metrics),
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith(WITHHELD)}
        environment["WANDB_ERROR_REPORTING"] = "false"
        if self._api_key is not None:
            environment["WANDB_API_KEY"] = self._api_key.reveal()
        process = subprocess.Popen(
            [sys.executable, "-m", "windrow.resources.tracking.wandb_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # W&B's own server must go with it
        )
        try:
            _, said = process.communicate(json.dumps(message), timeout=self._seconds)
        except subprocess.TimeoutExpired:
            raise TrackingFailed(
                f"W&B did not take window {metrics.window} in {self._seconds:g} s; its numbers are "
                "in the lake. Look at the connection, or set WANDB_MODE=offline."
            ) from None
        finally:
            _end(process)
        if process.returncode:
            raise TrackingFailed(
                f"W&B refused window {metrics.window}: {self._without_key(_last_line(said))}. Its "
                "numbers are in the lake. Check WANDB_API_KEY, WANDB_ENTITY and WANDB_PROJECT."
            )

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key.reveal(), "(hidden)") if self._api_key else text


def forget_runs(folder: Path, before: float) -> int:
    """Delete W&B's own files of windows logged before a time (unix seconds); returns how many.

    folder: of the tracker. What was never synced goes too: the lake has the numbers.
    """
    gone = 0
    for run in (folder / "wandb").glob("*run-*"):
        # `latest-run` is a link.
        if run.is_dir() and not run.is_symlink() and run.stat().st_mtime < before:
            shutil.rmtree(run)
            gone += 1
    return gone


def _end(process: subprocess.Popen[str]) -> None:
    """Whatever the process left running goes too."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
        for pipe in (process.stdin, process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "it said nothing"
