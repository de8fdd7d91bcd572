"""The fleet as a run sees it: who is declared, how each is asked, one asker a node at a time."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from windrow import WindrowError
from windrow.engine.fleet.facts import Facts
from windrow.engine.fleet.inventory import Fleet, Node
from windrow.resources.fleet.callback import Callback
from windrow.resources.fleet.inventory_file import FleetFile
from windrow.resources.fleet.nodes import NodeAccess, NodeBusy
from windrow.resources.fleet.trusted import Trusted, TrustedNodeFailed
from windrow.resources.gpu_turns import GpuTurns
from windrow.resources.locks import file_lock
from windrow.resources.wallet import Wallet

NODE_WAITS: Final = 120.0


class NoPods(WindrowError):
    """Nodes of a cluster cannot be asked."""


@dataclass(frozen=True)
class Work:
    """How much is asked of a node.

    processor_bytes: memory an attestation may take on a machine without a GPU. processor_matrix,
    gpu_matrix: rows of the matrices of the matrix product. *_nonces: of a proof of compute, and
    *_samples: how many of them are computed again here, which takes a processor seconds each for
    the model of a GPU. password: characters of the hash challenge of a machine without a GPU. rows:
    that are recomputed or opened. seconds: most that one answer may take; look_seconds: of facts
    and preflight. callback_pause: seconds between the rounds in which a node calls back.
    """

    processor_bytes: int = 64 << 20
    processor_matrix: int = 512
    gpu_matrix: int = 8192
    processor_nonces: int = 64
    processor_samples: int = 16
    gpu_nonces: int = 2048
    gpu_samples: int = 4
    gpu_model: str = "V1"
    password: int = 4
    processor_prompts: int = 8
    processor_tokens: int = 16
    gpu_prompts: int = 240
    gpu_tokens: int = 256
    rows: int = 32
    seconds: float = 900.0
    look_seconds: float = 60.0
    callback_pause: float = 1.0


@dataclass
class Remembered:
    """What this process has looked up of a node for a run, and need not look up again.

    timings: seconds of proofs of earlier runs by kind, rows as `timing_plot` takes them.
    """

    run_id: str
    facts: Facts | None = None
    timings: dict[str, list[dict[str, Any]]] | None = None


class FleetAccess:
    """Nodes by name. Answers of a node's process outlive a step, so it is kept for the next one."""

    def __init__(
        self,
        file: FleetFile,
        wallet: Wallet,
        home: Path,
        turns: GpuTurns,
        *,
        work: Work | None = None,
        trusted: str | None = None,
        pods: Callable[[Node], NodeAccess] | None = None,
        variables: Mapping[str, str] | None = None,
        callback: Callback | None = None,
    ) -> None:
        """home: where locks lie. turns: the GPUs of this machine, for the node that is local.

        trusted: the node whose answers are believed; None is this machine. pods: how nodes of the
        cluster are asked. variables: what this machine's own process sees as a node.
        callback: where nodes show which address they come from.
        """
        self.file = file
        self.wallet = wallet
        self.work = work or Work()
        self.callback = callback
        self._trusted = trusted
        self._pods = pods
        self._variables = variables
        self._locks = home / "locks"
        self._turns = turns
        self._fleet: tuple[tuple[int, int, int] | None, Fleet] | None = None
        self._open: dict[tuple[str, str], NodeAccess] = {}
        self._guard = threading.Lock()
        self._remembered: dict[str, Remembered] = {}

    def fleet(self) -> Fleet:
        """Who is declared now; read again when the file has changed. Raises InvalidFleet."""
        edition = self._edition()
        if self._fleet is None or self._fleet[0] != edition:
            self._fleet = edition, self.file.load()
        return self._fleet[1]

    def node(self, name: str) -> Node:
        """A node's declaration. Raises UnknownNode, InvalidFleet."""
        return self.fleet().node(name)

    def remembered(self, node: str, run_id: str) -> Remembered:
        """What is known of a node for this run; what was of an earlier run is forgotten."""
        found = self._remembered.get(node)
        if found is None or found.run_id != run_id:
            found = self._remembered[node] = Remembered(run_id)
        return found

    def access(self, node: Node) -> NodeAccess:
        """The way to ask a node, kept open for later steps."""
        return self._kept(node.name, node)

    def _kept(self, owner: str, node: Node) -> NodeAccess:
        key = owner, node.model_dump_json()
        with self._guard:
            if key not in self._open:
                for stale in [other for other in self._open if other[0] == owner]:
                    self._open.pop(stale).close()
                self._open[key] = self._opened(node)
            return self._open[key]

    def trusted(self, other_than: Node) -> Trusted:
        """The node whose answers are believed. Raises UnknownNode, TrustedNodeFailed."""
        if self._trusted is None:
            # Its own, whatever nodes are declared: no node has this name.
            return Trusted(self._kept("", Node(name="trusted", transport="local")))
        if self._trusted == other_than.name:
            raise TrustedNodeFailed(
                f"{other_than.name} is the trusted node itself; trust another one to verify it"
            )
        node = self.node(self._trusted)
        return Trusted(self.access(node), partial(self.alone, node.name))

    @contextlib.contextmanager
    def alone(self, name: str, wait: float = NODE_WAITS) -> Iterator[None]:
        """The only one that asks a node. Raises NodeBusy."""
        until = time.monotonic() + wait
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(file_lock(self._locks / f"node-{name}.lock", wait=False))
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise NodeBusy(
                            f"another run has been asking node {name} for {wait:.0f} s; wait for "
                            "it, or stop it, and ask again"
                        ) from None
                    time.sleep(0.2)
            yield

    def close(self) -> None:
        """Close every way; a later question opens its own."""
        with self._guard:
            while self._open:
                self._open.popitem()[1].close()

    def _opened(self, node: Node) -> NodeAccess:
        match node.transport:
            case "local":
                from windrow.resources.fleet.nodes import LocalNode
                from windrow.resources.fleet.turns import InTurn

                return InTurn(LocalNode(node.name, self._variables), node.name, self._turns)
            case "agent":
                return self._agent(node)
            case "kubernetes":
                if self._pods is None:
                    raise NoPods(
                        f"node {node.name} is one of a cluster, and no image for its pods is "
                        "named: set WINDROW_POD_IMAGE to one that holds Windrow"
                    )
                return self._pods(node)

    def _agent(self, node: Node) -> NodeAccess:
        from windrow.resources.fleet.agent_node import AgentNode

        # The inventory refuses a node without them.
        assert node.agent_hotkey is not None
        assert node.agent_key is not None
        return AgentNode(
            node.name,
            host=node.host,
            port=node.agent_port,
            hotkey=node.agent_hotkey,
            key=node.agent_key,
            wallet=self.wallet,
            tls=node.agent_tls,
        )

    def _edition(self) -> tuple[int, int, int] | None:
        try:
            stat = self.file.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
