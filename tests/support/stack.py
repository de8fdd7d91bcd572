"""The whole of an embedded Windrow as an operator runs it, to be killed and started again.

One of two layouts: `dagster dev`, or code server, daemon and webserver as three services. Every
process of it carries a mark in its environment, so all of them are found, whoever started them.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psutil
import yaml

from tests.support.embedded import embedded_settings
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.pipelines.live import open_chain, open_wallet
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.warehouse.lake import Lake

ROOT = Path(__file__).parents[2]
MARK = "STACK_MARK"
LAYOUTS = ("dev", "services")
DAGSTER = (sys.executable, "-m", "dagster")


@dataclass
class Stack:
    """One installation in a folder. window_seconds: how long a window lasts on its chain."""

    folder: Path
    layout: str
    window_seconds: float = 60.0
    groups: int = 2
    mark: str = field(default_factory=lambda: uuid4().hex)
    starts: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "dagster.yaml", self.folder)
        self.settings = embedded_settings(self.folder / ".windrow", **self._variables())
        self.chain = open_chain(self.settings)
        self.hotkey = open_wallet(self.settings).hotkey

    def _variables(self) -> dict[str, str]:
        return {
            "WINDROW_CHAIN_BLOCK_SECONDS": str(self.window_seconds / WINDOW_BLOCKS),
            "WINDROW_MAX_GROUPS": str(self.groups),
        }

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    @contextlib.contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Dagster's own state; paths in its file are relative to the folder."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with dg.DagsterInstance.from_config(str(self.folder)) as instance:
                yield instance
        finally:
            os.chdir(before)

    def start(self) -> None:
        """Start every service of the layout, each with a log of its own."""
        self.starts += 1
        if self.layout == "dev":
            self._launch(
                "dev", *DAGSTER, "dev", "-m", "windrow.pipelines.definitions", "-p", _port()
            )
            return
        port = _port()
        workspace = self.folder / "workspace-server.yaml"
        server = {"host": "127.0.0.1", "port": int(port), "location_name": "windrow"}
        workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        module = ("-m", "windrow.pipelines.definitions")
        self._launch(
            "code", *DAGSTER, "code-server", "start", *module, "-h", "127.0.0.1", "-p", port
        )
        binary = Path(sys.executable).parent
        self._launch("daemon", str(binary / "dagster-daemon"), "run", "-w", workspace.name)
        web = str(binary / "dagster-webserver")
        self._launch("web", web, "-w", workspace.name, "-h", "127.0.0.1", "-p", _port())

    def _launch(self, name: str, *command: str) -> None:
        environment = {
            **os.environ,
            **self._variables(),
            MARK: self.mark,
            "DAGSTER_HOME": str(self.folder),
            "WINDROW_HOME": str(self.folder / ".windrow"),
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / f"{name}-{self.starts}.log").open("wb") as log:
            subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_default_signals,
            )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Every process of the stack, whichever one started it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def kill(self, processes: Sequence[psutil.Process] | None = None) -> None:
        """End processes (all of them when None) as a power cut does."""
        doomed = self.processes() if processes is None else processes
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(doomed, timeout=10)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def open_window(self) -> int:
        return window_start(self.chain.block())

    def uploads(self) -> dict[int, bool]:
        """Windows with an upload, and whether it was in time."""
        rows = self.lake.query("SELECT window_start, on_time FROM uploads").to_pylist()
        return {row["window_start"]: row["on_time"] for row in rows}

    def faults(self) -> list[dict[str, Any]]:
        """Rows of faults that concern a whole window, oldest first."""
        sql = "SELECT * FROM faults WHERE rollout_group IS NULL ORDER BY recorded_at"
        rows: list[dict[str, Any]] = self.lake.query(sql).to_pylist()
        return rows

    def objects(self) -> list[str]:
        """Keys of the window files in the bucket."""
        return [info.key for info in open_bucket(self.settings.bucket).list("grail/windows/")]


def wait_for(condition: Any, seconds: float, what: str, every: float = 0.5) -> float:
    """Wait until a condition holds; return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(every)
    return time.monotonic() - began


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _default_signals() -> None:
    """A shell may have told its jobs to ignore SIGINT, which Dagster maps SIGTERM to."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


__all__ = ["LAYOUTS", "Settings", "Stack", "wait_for"]
