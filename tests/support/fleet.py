"""Nodes over real HTTP on loopback, honest or not, and a home that verifies them."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp

from windrow import WindrowError
from windrow.assets.fleet.standings import standings
from windrow.engine.fleet import tasks
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.stages import STAGES, Standing
from windrow.pipelines.build import build
from windrow.pipelines.commands.node_verify import run_node
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.access import FleetAccess, Work
from windrow.resources.fleet.agent_identity import public_half
from windrow.resources.fleet.agent_service import agent_app
from windrow.resources.fleet.nodes import Answer, TaskFailed
from windrow.resources.guarded_server import guarded_server
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.lake import Lake

SMALL = Work(
    processor_bytes=8 << 20,
    processor_matrix=128,
    processor_nonces=8,
    processor_samples=4,
    password=2,
    rows=8,
    seconds=20.0,
    look_seconds=10.0,
)
WORKING = ("compute-subnet", "gonka")


@dataclass
class Machine:
    """This process as a node: the real answers, but for those that `instead` gives.

    asked: every task, in order.
    """

    instead: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        self.asked.append(task)
        act = self.instead.get(task, lambda data: tasks.answer(task, data))
        try:
            return Answer(act(request), 0.0)
        except TaskFailed:
            raise
        except WindrowError as error:
            raise TaskFailed("n", task, type(error).__name__, str(error)) from error

    def close(self) -> None:
        return None


def lost(reason: str) -> Callable[[bytes], bytes]:
    """What a node says that can do no more."""

    def act(_request: bytes) -> bytes:
        raise TaskFailed("n", "task", reason, "it does not answer")

    return act


def told(**changes: Any) -> Callable[[bytes], bytes]:
    """Facts with some of them changed."""

    def act(request: bytes) -> bytes:
        return to_json(from_json(tasks.answer("facts", request)) | changes)

    return act


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """An ASGI app on a port of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = guarded_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@dataclass(frozen=True)
class FleetHome:
    """A Windrow with a fleet.yaml of its own, and no time to lose."""

    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    key: Ed25519PrivateKey

    @classmethod
    def make(cls, path: Path, work: Work = SMALL, **variables: str) -> "FleetHome":
        own = {"WINDROW_HOME": str(path), "WINDROW_FLEET": str(path / "fleet.yaml")}
        settings = Settings.read(own | variables)
        home = cls(
            settings, build(settings), dg.DagsterInstance.ephemeral(), Ed25519PrivateKey.generate()
        )
        home.fleet.work = work
        return home

    @property
    def fleet(self) -> FleetAccess:
        found: FleetAccess = (self.definitions.resources or {})["fleet"]
        return found

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    @property
    def hotkey(self) -> str:
        return DevelopmentWallet(self.settings.wallet_uri).hotkey

    def agent(self, machine: Machine, **options: Any) -> Any:
        """The real agent of a machine; options as `agent_app` takes them."""
        given = {"hotkey": self.hotkey, "callers": [self.hotkey], "key": self.key, **options}
        return agent_app(machine, **given)

    def declare(
        self, ports: Mapping[str, int], networks: Sequence[str] = (), **fields: Any
    ) -> None:
        """Write fleet.yaml: a node a port."""
        nodes = [
            {
                "name": name,
                "agent_port": port,
                "agent_hotkey": self.hotkey,
                "agent_key": public_half(self.key),
                "networks": list(networks),
                **deepcopy(fields),  # one list in two nodes would be written as an alias
            }
            for name, port in ports.items()
        ]
        self.settings.fleet.parent.mkdir(parents=True, exist_ok=True)
        self.settings.fleet.write_text(yaml.safe_dump({"nodes": nodes}))
        self.instance.add_dynamic_partitions("nodes", list(ports))

    def verify(self, name: str = "n", stages: Sequence[str] = STAGES) -> bool:
        """One run; whether it came to its end."""
        return run_node(self.definitions, self.instance, name, stages)

    def standing(self, name: str = "n") -> Standing:
        return standings(self.lake, [name], time.time())[name]

    def checks(self, name: str = "n") -> list[dict[str, Any]]:
        """Rows of the node's checks, oldest first."""
        sql = "SELECT * FROM node_checks WHERE node = ? ORDER BY observed_at"
        rows: list[dict[str, Any]] = self.lake.query(sql, [name]).to_pylist()
        return rows

    def refused(self, name: str = "n") -> dict[str, str]:
        """Reasons of what Windrow finds wrong, by check."""
        rows = self.checks(name)
        return {row["check"]: row["reason"] for row in rows if row["windrow_verdict"] is False}
