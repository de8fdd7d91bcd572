"""The demo's fleet: this machine, an agent on it, and one that cheats, each verified."""

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from windrow import WindrowError
from windrow.assets.fleet.overview import PROOFS, WRONG
from windrow.engine.fleet.inventory import Fleet
from windrow.engine.fleet.stages import STAGES, concerned
from windrow.pipelines.commands.node_table import print_nodes
from windrow.pipelines.demo.network import CHECKPOINT
from windrow.resources.configuration.settings import Settings
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.lake import Lake

if TYPE_CHECKING:
    import dagster as dg

NETWORKS = ("compute-subnet", "gonka")
HONEST, CHEAT = "agent", "cheat"


class DemoFleetFailed(WindrowError):
    """An honest demo node was not verified, or the one that cheats was."""


def verify_fleet(out: Console, settings: Settings, instance: "dg.DagsterInstance") -> None:
    """Verify three nodes and show what came of them. Raises DemoFleetFailed.

    Processors stand in for cards, on small sizes, so the honest nodes are unproven and the table
    says `no card`. The nodes are written to the demo's own fleet.yaml.
    """
    from windrow.assets.fleet.partitions import nodes
    from windrow.pipelines.build import build
    from windrow.pipelines.commands.node_verify import run_node, run_page
    from windrow.resources.fleet.access import Work

    wallet = DevelopmentWallet(settings.wallet_uri)
    with contextlib.ExitStack() as stack:
        agents = {
            CHEAT: stack.enter_context(_cheating_agent(wallet.hotkey)),
            HONEST: stack.enter_context(_honest_agent(wallet.hotkey, settings.home / "agent")),
        }
        _declare(settings.fleet, agents)
        definitions = build(settings)
        fleet = (definitions.resources or {})["fleet"]
        stack.callback(fleet.close)
        fleet.work = Work(processor_bytes=16 << 20, processor_matrix=256, processor_prompts=4)
        declared: Fleet = fleet.fleet()
        instance.add_dynamic_partitions(nodes.name, [*declared.nodes])
        for name, node in declared.nodes.items():
            out.print(f"node {name}: facts, preflight, proofs …")
            run_node(definitions, instance, name, concerned(STAGES, node.networks))
        run_page(definitions, instance)
        lake = Lake(settings.lake)
        print_nodes(out, lake, declared, [*declared.nodes])
        _say_what_is_shown(out, lake)
        _hold_to_promise(lake, [*declared.nodes])


def _say_what_is_shown(out: Console, lake: Lake) -> None:
    """Say why honest nodes are unproven on a machine without a card."""
    (seen,) = lake.query("SELECT max(gpu_count) AS cards FROM node_facts").to_pylist()
    if not seen["cards"]:
        out.print(
            "This machine has no card, so processors answered in place of cards. That is\n"
            "unproven, however right the answers are; only a node whose cards answer is\n"
            "verified. The node that gave wrong answers is refused.",
            highlight=False,
        )


def _hold_to_promise(lake: Lake, names: list[str]) -> None:
    from windrow.assets.fleet.standings import standings

    wrong = lake.query(WRONG, [names]).to_pylist()
    caught = {row["node"] for row in wrong if row["stage"] in PROOFS}
    unverified = [
        name for name, found in standings(lake, names, time.time()).items()
        if found.state != "verified"
    ]  # fmt: skip
    if caught != {CHEAT} or unverified:
        raise DemoFleetFailed(
            f"caught: {', '.join(sorted(caught)) or 'nobody'}; not verified: "
            f"{', '.join(unverified) or 'nobody'}. The reasons: "
            f"cd {shlex.quote(str(Path.cwd()))} && windrow sql network_refusals"
        )


def _declare(path: Path, agents: dict[str, dict[str, Any]]) -> None:
    here = {
        "name": "here",
        "transport": "local",
        "networks": [*NETWORKS, "compute-horde"],
        "models": [{"name": CHECKPOINT.name}],
    }
    others = [
        {"name": name, "networks": [*NETWORKS], **entry} for name, entry in sorted(agents.items())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"nodes": [here, *others]}, sort_keys=False))


@contextlib.contextmanager
def _honest_agent(hotkey: str, home: Path) -> Iterator[dict[str, Any]]:
    """`windrow agent` in a process of its own, as on another machine."""
    program = "from windrow.pipelines.cli import main; main()"
    command = [sys.executable, "-c", program, "agent", "--hotkey", hotkey, "--port", "0"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"WINDROW_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _printed(process)
    finally:
        process.terminate()
        process.wait(10)


def _printed(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What the agent says that fleet.yaml needs. Raises DemoFleetFailed."""
    lines: list[str] = []
    for line in process.stdout or ():
        if not line.strip():
            break
        lines.append(line)
    entry = yaml.safe_load("".join(lines[1:])) if lines else None
    if not isinstance(entry, dict):
        raise DemoFleetFailed("the demo's agent did not start; the lines above say why")
    return entry


@contextlib.contextmanager
def _cheating_agent(hotkey: str) -> Iterator[dict[str, Any]]:
    """The real agent over a node that answers with what it prepared."""
    import uvicorn
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from windrow.pipelines.demo.cheat import PreparedAnswers
    from windrow.resources.fleet.agent_identity import public_half
    from windrow.resources.fleet.agent_service import agent_app
    from windrow.resources.fleet.nodes import LocalNode

    key = Ed25519PrivateKey.generate()
    node = PreparedAnswers(LocalNode(CHEAT))
    app = agent_app(node, hotkey=hotkey, callers=[hotkey], key=key)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield {
            "agent_port": listening.getsockname()[1],
            "agent_hotkey": hotkey,
            "agent_key": public_half(key),
        }
    finally:
        server.should_exit = True
        thread.join(10)
        node.close()
        listening.close()
