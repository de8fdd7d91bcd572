"""One step of a node's verification: who is asked, what was found, and how it ended, as rows.

A node that is lost ends its own run: the step fails with the reason, which is a row of
`node_states`, and the next run goes on there. A finding is no failure, however bad it is.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg
import pyarrow as pa

from windrow import WindrowError
from windrow.assets.fleet.partitions import nodes
from windrow.engine.fleet.cards import cards_check, needs_cards
from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.facts import Facts, parse_facts
from windrow.engine.fleet.gpu_facts import FAULTS
from windrow.engine.fleet.inventory import Node
from windrow.engine.fleet.stages import GPU_BUSY, NETWORK_OF
from windrow.networks.grail.windows import window_start
from windrow.resources.fleet.access import FleetAccess, Remembered
from windrow.resources.fleet.nodes import Answer, TaskFailed
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS

LOST = frozenset({*FAULTS, "NoSuchDevice", "OutOfMemory"})
"""What a node says of itself when it can do no more; any other failure is a finding."""

NEWEST_FACTS = "SELECT facts FROM node_facts WHERE node = ? ORDER BY observed_at DESC LIMIT 1"


class NoFacts(WindrowError):
    """A step needs a node's facts, and the lake has none."""


@dataclass
class Stage:
    """A step in the making. window: the scoring window it is observed in."""

    name: str
    node: Node
    fleet: FleetAccess
    lake: Lake
    run_id: str
    window: int
    observed_at: float
    checks: list[NodeCheck] = field(default_factory=list)
    proofs: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    began: bool = False
    busy: bool = False

    def begin(self) -> None:
        """Say that the step is at work; one that asks the node says it by itself."""
        if not self.began:
            self.began = True
            self._store_states(())

    def ask(self, task: str, request: bytes, *, max_bytes: int, seconds: float = 0.0) -> Answer:
        """The node's answer. seconds: most it may take, that of the fleet's work if 0."""
        self.begin()
        timeout = seconds or self.fleet.work.seconds
        access = self.fleet.access(self.node)
        return access.ask(task, request, timeout=timeout, max_bytes=max_bytes)

    @property
    def remembered(self) -> Remembered:
        """What this run has looked up of the node."""
        return self.fleet.remembered(self.node.name, self.run_id)

    def facts(self) -> Facts:
        """The node's newest facts. Raises NoFacts."""
        if self.remembered.facts is not None:
            return self.remembered.facts
        rows = self.lake.query(NEWEST_FACTS, [self.node.name]).to_pylist()
        if not rows:
            raise NoFacts(f"no facts of node {self.node.name} are known: materialize `facts` first")
        return parse_facts(rows[0]["facts"].encode())

    def concerns(self, network: str) -> bool:
        """Whether the node is declared for a network; a row says so where it is not."""
        if network in self.node.networks:
            return True
        self.checks.append(self._not_declared(self.name, network))
        return False

    def leave_out(self, stage: str) -> None:
        """A row and a state for a step that does not concern the node, and is not begun for it."""
        self.left_out.append(stage)

    def _not_declared(self, stage: str, network: str) -> NodeCheck:
        why = f"skipped: fleet.yaml does not declare {self.node.name} for {network}"
        return NodeCheck(stage, network, None, None, reason=why)

    def skip(self, network: str, why: str, remedy: str = "") -> None:
        """A row that says why this step has no verdict."""
        self.checks.append(
            NodeCheck(self.name, network, None, None, reason=f"skipped: {why}", remedy=remedy)
        )

    def note_cards(self, answered: Sequence[str] | None = None) -> None:
        """Rows that say which cards an answer is from, once it is there.

        answered: product names of the cards, those of the facts by default; empty where the
        processor stood in for them, which proves nothing of a node that needs cards.
        """
        names = [gpu.name for gpu in self.facts().gpus] if answered is None else answered
        if not names:
            why = "no GPU was seen: the processor answered as a stand-in device, on small sizes"
            self.checks.append(NodeCheck("device", WINDROW, None, None, reason=why))
        if needs_cards(self.node):
            self.checks.append(cards_check(self.node, names))

    @contextmanager
    def answering(self, network: str, *, network_verdict: bool | None) -> Iterator[None]:
        """Asks for an answer; that the node fails to give it is a finding, see `refused`."""
        try:
            yield
        except TaskFailed as error:
            self.refused(network, error, network_verdict=network_verdict)

    def refused(self, network: str, error: TaskFailed, *, network_verdict: bool | None) -> None:
        """What a node that said it cannot do something is worth: nothing shown."""
        if error.reason in LOST:
            raise error
        if error.reason == GPU_BUSY:
            self.busy = True
            self.skip(network, str(error), "ask again when nothing works on its GPUs")
            return
        self.checks.append(
            NodeCheck(self.name, network, network_verdict, False, reason=str(error)[:1000])
        )

    def proof(self, **values: object) -> None:
        """A row of `attestations`; columns not named are null."""
        known: dict[str, object] = dict.fromkeys(DATASETS["attestations"].columns)
        mine = {"run_id": self.run_id, "kind": self.name}
        self.proofs.append(known | self._of_node() | mine | values)

    def write(self, dataset: str, rows: Iterable[Mapping[str, object]]) -> pa.Table:
        """Store this step's rows of a dataset; window, node and time are added."""
        table = DATASETS[dataset].table([self._of_node() | dict(row) for row in rows])
        name = f"{self.node.name}.{self.name}.{self.run_id[:8]}"
        self.lake.write(dataset, self.window, name, table, run_id=self.run_id, replace=True)
        return table

    def _of_node(self) -> dict[str, object]:
        return {
            "window_start": self.window,
            "node": self.node.name,
            "observed_at": self.observed_at,
        }

    def end(self, state: str, reason: str = "", detail: str = "") -> None:
        """Store checks and proofs, then the state: what is done has its rows."""
        rows = [self._check_row(check, self.name) for check in self.checks]
        rows += [
            self._check_row(self._not_declared(stage, NETWORK_OF[stage]), stage)
            for stage in self.left_out
        ]
        if rows:
            self.write("node_checks", rows)
        if self.proofs:
            self.write("attestations", self.proofs)
        now = time.time()
        left_out = [(stage, "done", now, "", "") for stage in self.left_out]
        self._store_states([(self.name, state, now, reason, detail), *left_out])

    def _store_states(self, ended: Sequence[tuple[str, str, float, str, str]]) -> None:
        self.write(
            "node_states",
            (
                {
                    "run_id": self.run_id,
                    "stage": stage,
                    "state": state,
                    "observed_at": at,
                    "reason": reason,
                    "detail": detail,
                }
                for stage, state, at, reason, detail in (
                    (self.name, "started", self.observed_at, "", ""),
                    *ended,
                )
            ),
        )

    def _check_row(self, check: NodeCheck, stage: str) -> dict[str, object]:
        fields = {name: value for name, value in vars(check).items() if name != "gpu"}
        mine = {"run_id": self.run_id, "stage": stage, "gpu_uuid": check.gpu}
        return fields | mine


NODE_RESOURCES = {"fleet", "lake", "chain"}

node_asset = partial(
    dg.asset,
    partitions_def=nodes,
    group_name="fleet",
    required_resource_keys=NODE_RESOURCES,
)
"""`dagster.asset` with what every step has in common; `step_of` is what its body begins with."""


@contextmanager
def step_of(context: dg.AssetExecutionContext) -> Iterator[Stage]:
    """The step of this asset and partition; rows are stored however it ends.

    What goes wrong becomes the state `failed`; a WindrowError is not retried by itself.
    """
    found = context.resources
    fleet: FleetAccess = found.fleet
    with _named():
        step = Stage(
            context.asset_key.path[-1],
            fleet.node(context.partition_key),
            fleet,
            found.lake,
            context.run.run_id,
            window_start(found.chain.block()),
            time.time(),
        )
        try:
            with fleet.alone(step.node.name):
                yield step
        except Exception as error:  # whatever it was, the node's history says so
            step.end("failed", _reason(error), str(error)[:2000])
            raise
        step.end("done", GPU_BUSY if step.busy else "")


@contextmanager
def _named() -> Iterator[None]:
    """A WindrowError becomes a failed step that says the same."""
    try:
        yield
    except WindrowError as error:
        metadata = {"reason": _reason(error)}
        raise dg.Failure(str(error), metadata=metadata, allow_retries=False) from error


def _reason(error: Exception) -> str:
    """A node's own name for what went wrong with it, else the error's."""
    return error.reason if isinstance(error, TaskFailed) else type(error).__name__
