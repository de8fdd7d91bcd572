"""What it costs to verify a large fleet: 200 agents on loopback, each over real HTTP.

Agents are the real ones, in one process of their own, behind 200 ports; each checks signatures,
keeps nonces and signs its answers. Their work is real and tiny: facts, preflight and an attestation
of 8 MiB, a hash challenge, a matrix product and a proof of compute. Askers are two processes that
run the job `verify_node`, a Dagster run of eight steps a node, rows in one lake. The nodes serve
all four networks; they declare no model, so the job of a language model is a row that says so.

Orchestration is the time from the first request to the last row, less the time in which both
askers wait for answers, which is the agents' work and theirs to spend elsewhere. So Dagster,
signing, locks, verification and Parquet count, and so does sharing the two cores with the agents.
The whole time and the processor's are printed beside it. Dagster keeps its events in memory, as the
lake is the truth; what a run costs with SQLite on disk instead is measured on a few nodes, and
printed too.
"""

import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ratio import Ratio

NODES = 200
ASKERS = 2
ON_DISK = 6
PROOFS = 4  # attestation, hash challenge, matrix product, proof of compute
BUDGET_SECONDS = 60.0
ROOT = Path(__file__).parents[1]


def run() -> list[Ratio]:
    """Verify all of them once; every node must end verified and sound."""
    with tempfile.TemporaryDirectory(prefix="windrow-fleet-") as folder:
        home = Path(folder)
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        agents = spawn.Process(target=_agents, args=(theirs, NODES), daemon=True)
        agents.start()
        try:
            _declare(home, ours.recv())
            names = [f"n{number}" for number in range(NODES)]
            askers = [_asker(spawn, home, names[n::ASKERS], None) for n in range(ASKERS)]
            seconds, waiting, cpu = _time(askers)
            _print_parts(home)
            disk, _, _ = _time([_asker(spawn, home, names[:ON_DISK], str(home / "dagster"))])
        finally:
            agents.terminate()
            agents.join()
    ours_seconds = seconds - waiting
    print(
        f"{NODES} nodes: {seconds:.1f} s, {waiting:.1f} s of it waiting for answers; "
        f"{cpu:.1f} s of the askers' processor time, over two cores"
    )
    print(f"with Dagster's events in SQLite on disk: {disk / ON_DISK:.2f} s a node in one process")
    ratio = BUDGET_SECONDS / ours_seconds
    return [
        Ratio(
            f"orchestration of {NODES} verifications vs its budget",
            ours=ours_seconds,
            plain=BUDGET_SECONDS,
            unit="s",
            ratio=ratio,
            target="under the budget of 60 s",
            met=ratio > 1,
        )
    ]


def _asker(spawn: Any, home: Path, names: Sequence[str], disk: str | None) -> tuple[Any, Any]:
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_ask, args=(theirs, home, list(names), disk), daemon=True)
    process.start()
    return process, ours


def _time(askers: Sequence[tuple[Any, Any]]) -> tuple[float, float, float]:
    """Seconds from one word to all until the last is done, of it the least that one waited for
    answers, and their processor time."""
    for _, pipe in askers:
        pipe.recv()
    began = time.monotonic()
    for _, pipe in askers:
        pipe.send("go")
    done = [pipe.recv() for _, pipe in askers]
    seconds = time.monotonic() - began
    for process, _ in askers:
        process.join()
    failed = [name for answer in done for name in answer["failed"]]
    if failed:
        raise RuntimeError(f"{len(failed)} nodes were not verified, first {failed[0]}")
    waiting = min(answer["waiting"] for answer in done)
    return seconds, waiting, sum(answer["cpu"] for answer in done)


def _ask(pipe: Connection, home: Path, names: list[str], disk: str | None) -> None:
    """A process that verifies nodes one after the other."""
    import dagster as dg

    os.environ |= {"WINDROW_HOME": str(home), "WINDROW_FLEET": str(home / "fleet.yaml")}
    from windrow.assets.fleet import attestation_rounds  # noqa: F401 - torch, before time counts
    from windrow.engine.fleet.inventory import Node
    from windrow.pipelines.commands.node_verify import run_node
    from windrow.pipelines.definitions import defs
    from windrow.resources.fleet.access import Work
    from windrow.resources.fleet.nodes import Answer

    fleet = (defs.resources or {})["fleet"]
    fleet.work = Work(processor_bytes=8 << 20, rows=8)
    waited: list[float] = []
    way = fleet.access

    class Timed:
        def __init__(self, node: Node) -> None:
            self._node = way(node)

        def ask(self, task: str, request: bytes, **limits: Any) -> Answer:
            answer: Answer = self._node.ask(task, request, **limits)
            waited.append(answer.seconds)
            return answer

    fleet.access = Timed
    if disk is None:
        instance = dg.DagsterInstance.ephemeral()
    else:
        Path(disk).mkdir()
        text = (ROOT / "dagster.yaml").read_text().replace("base_dir: ", f"base_dir: {disk}/")
        Path(disk, "dagster.yaml").write_text(text)
        instance = dg.DagsterInstance.from_config(disk)
    with instance:
        instance.add_dynamic_partitions("nodes", names)
        pipe.send("ready")
        pipe.recv()
        before = os.times()
        failed = [name for name in names if not run_node(defs, instance, name)]
        after = os.times()
    cpu = after.user + after.system - before.user - before.system
    pipe.send({"failed": failed, "cpu": cpu, "waiting": sum(waited)})


def _agents(pipe: Connection, count: int) -> None:
    """Real agents behind ports of their own, in one event loop; the work is this process's."""
    import asyncio

    import uvicorn
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from windrow.engine.fleet import tasks
    from windrow.resources.configuration.settings import Settings
    from windrow.resources.fleet.agent_identity import public_half
    from windrow.resources.fleet.agent_service import agent_app
    from windrow.resources.fleet.nodes import Answer
    from windrow.resources.secret import Secret
    from windrow.resources.wallet import DevelopmentWallet

    hotkey = DevelopmentWallet(Secret(Settings.read({}).wallet_uri.reveal())).hotkey
    one_at_a_time = threading.Lock()  # one machine stands for all, and has one attestation at once

    class Machine:
        def ask(self, task: str, request: bytes, **_limits: float) -> Answer:
            with one_at_a_time:
                return Answer(tasks.answer(task, request), 0.0)

        def close(self) -> None:
            return None

    async def serve() -> None:
        entries, servers = [], []
        for number in range(count):
            key = Ed25519PrivateKey.generate()
            app = agent_app(Machine(), hotkey=hotkey, callers=[hotkey], key=key)
            listening = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(app, log_level="critical", lifespan="off")
            servers.append(uvicorn.Server(config).serve([listening]))
            entries.append(
                {
                    "name": f"n{number}",
                    "networks": ["chutes", "compute-horde", "compute-subnet", "gonka"],
                    "agent_port": listening.getsockname()[1],
                    "agent_hotkey": hotkey,
                    "agent_key": public_half(key),
                }
            )
        pipe.send(entries)
        await asyncio.gather(*servers)

    asyncio.run(serve())


def _declare(home: Path, entries: list[dict[str, Any]]) -> None:
    (home / "fleet.yaml").write_text(yaml.safe_dump({"nodes": entries}))


def _print_parts(home: Path) -> None:
    from windrow.resources.warehouse.lake import Lake

    lake = Lake(home / "lake")
    rows = lake.query(
        "SELECT kind, count(*) AS proofs, count(*) FILTER (passed) AS passed, "
        "sum(seconds) AS asked, sum(verify_seconds) AS verified "
        "FROM attestations GROUP BY kind ORDER BY kind"
    ).to_pylist()
    for row in rows:
        if row["proofs"] != NODES or row["passed"] != NODES:
            raise RuntimeError(f"{row['passed']} of {NODES} honest proofs passed: {row['kind']}")
        print(
            f"  {row['kind']}: {row['asked']:.1f} s waiting for answers (two nodes at a time), "
            f"{row['verified'] or 0.0:.1f} s of processor time to verify them"
        )
    if len(rows) != PROOFS:
        raise RuntimeError(f"{len(rows)} kinds of proof instead of {PROOFS}")


if __name__ == "__main__":
    print(run())
