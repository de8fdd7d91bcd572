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
from windrow.pipelines.runs.worker import tagged_worker
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.warehouse.lake import Lake

ROOT = Path(__file__).parents[2]
MARK = "STACK_MARK"
LAYOUTS = ("dev", "services")
DAGSTER = (sys.executable, "-m", "dagster")
HOST = "127.0.0.1"


@dataclass
class Stack:
    """One installation in a folder. window_seconds: how long a window lasts on its chain."""

    folder: Path
    layout: str
    window_seconds: float = 60.0
    groups: int = 2
    mark: str = field(default_factory=lambda: uuid4().hex)
    starts: int = 0
    services: dict[str, psutil.Process] = field(default_factory=dict)

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
        module = ("-m", "windrow.pipelines.definitions")
        if self.layout == "dev":
            self._commands = {"dev": (*DAGSTER, "dev", *module, "-h", HOST, "-p", _port())}
        else:
            port = _port()
            workspace = self.folder / "workspace-server.yaml"
            server = {"host": HOST, "port": int(port), "location_name": "windrow"}
            workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
            served = ("-w", workspace.name)
            binary = Path(sys.executable).parent
            code = (*DAGSTER, "code-server", "start", *module, "-h", HOST, "-p", port)
            self._commands = {
                "code": code,
                "daemon": (str(binary / "dagster-daemon"), "run", *served),
                "web": (str(binary / "dagster-webserver"), *served, "-h", HOST, "-p", _port()),
            }
        for name in self._commands:
            self._launch(name)

    def restart(self, name: str) -> None:
        """Kill one service, with all that it started, and start it again."""
        self.kill(_family(self.services.pop(name)))
        self._launch(name)

    def daemon_runs(self) -> bool:
        """Whether the daemon that was started last has begun its work."""
        name = "dev" if self.layout == "dev" else "daemon"
        log = max(self.folder.glob(f"{name}-*.log"), key=lambda path: path.stat().st_ctime_ns)
        return "configured with the following daemons" in log.read_text(errors="replace")

    def runs(self) -> list[psutil.Process]:
        """The processes of the runs that are at work."""
        with self.instance() as instance:
            working = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        pids = {worker.pid for run in working if (worker := tagged_worker(run)) is not None}
        return [process for process in self.processes() if process.pid in pids]

    def service_bytes(self) -> dict[str, int]:
        """Resident bytes of each service with its helpers, without the runs that it started."""
        return {name: _size(service) for name, service in self.services.items()}

    def _launch(self, name: str) -> None:
        self.starts += 1
        environment = {
            **os.environ,
            **self._variables(),
            MARK: self.mark,
            "DAGSTER_HOME": str(self.folder),
            "WINDROW_HOME": str(self.folder / ".windrow"),
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / f"{name}-{self.starts}.log").open("wb") as log:
            child = subprocess.Popen(
                self._commands[name],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_default_signals,
            )
        self.services[name] = psutil.Process(child.pid)

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


def _size(process: psutil.Process) -> int:
    """Resident bytes of a process and its children. Runs are spawned by multiprocessing."""
    with contextlib.suppress(psutil.Error):
        if not any("multiprocessing" in word for word in process.cmdline()):
            return process.memory_info().rss + sum(map(_size, process.children()))
    return 0


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _default_signals() -> None:
    """A shell may have told its jobs to ignore SIGINT, which Dagster maps SIGTERM to."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
