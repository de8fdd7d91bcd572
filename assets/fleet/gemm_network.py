"""compute-subnet's own matrix product, asked for as the network does, and its verdict."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from windrow.assets.fleet.stage import LOST, Stage
from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.network_gemm import Job, proof_request
from windrow.engine.fleet.network_gemm_verify import (
    MAX_PRINTED,
    accepted_rows,
    network_verdict,
    proof_size,
    read_benchmark,
    read_compute,
    rows_limit,
)
from windrow.engine.fleet.stages import GPU_BUSY
from windrow.networks.compute_subnet.gpu_proof import BadProofOutput
from windrow.resources.fleet.nodes import TaskFailed

REMEDY = "run the network's test by hand: compute-subnet §7.2, tasks network_gemm.* of the node"


@dataclass(frozen=True)
class NetworkSaid:
    """rows: by GPU, whether its opened cell is taken; None where nothing was opened. verdict: on
    the whole node, None where the test says nothing of it. misled: what the network takes and is
    not so, in words. seconds, needed: of the product, and most the network allows."""

    rows: Mapping[int, bool | None]
    verdict: bool | None
    reason: str = ""
    misled: str = ""
    seconds: float | None = None
    needed: float | None = None

    def check(self, network: str, sound: bool) -> NodeCheck:
        """The row of the whole node. sound: whether its products of full entropy are right."""
        return NodeCheck(
            "gemm_job",
            network,
            self.verdict,
            sound and not self.misled if self.verdict is not None else None,
            measured=self.seconds,
            needed=self.needed,
            unit="s" if self.seconds is not None else "",
            reason="; ".join(filter(None, (self.reason, self.misled))),
            remedy=REMEDY if self.verdict is False else "",
        )


def ask_as_network(step: Stage) -> NetworkSaid:
    """One test of §7.2 on the node. Raises NodeError where it is lost.

    A machine that declares no GPU makes a small product on its processor: the network would end
    at the count of GPUs, so there is a verdict on the cell and none on the node.
    """
    try:
        return _asked(step)
    except BadProofOutput as error:
        return NetworkSaid({}, False, reason=str(error)[:1000])
    except TaskFailed as error:
        if error.reason in LOST:
            raise
        return NetworkSaid({}, None if error.reason == GPU_BUSY else False, str(error)[:1000])


def _asked(step: Stage) -> NetworkSaid:
    printed = step.ask("network_gemm.benchmark", b"", max_bytes=MAX_PRINTED)
    names, benchmark = read_benchmark(printed.body)
    if benchmark is None and (step.node.gpu_count or step.facts().gpus):
        return NetworkSaid({}, False, reason="the network's script finds no GPU")
    n = step.fleet.work.processor_matrix if benchmark is None else proof_size(benchmark)
    seeds = tuple(
        (gpu, secrets.randbits(64), secrets.randbits(64)) for gpu in range(len(names) or 1)
    )
    job = Job(n, seeds)
    answer = step.ask("network_gemm.compute", job.to_bytes(), max_bytes=MAX_PRINTED)
    committed = read_compute(answer.body, job)
    # The network draws cells of matrices of the size that the node says it has (§7.2, step 10).
    size = min(committed.n, n)
    cells = [(gpu, (secrets.randbelow(size), secrets.randbelow(size))) for gpu, *_ in seeds]
    limit = rows_limit(job, committed)
    opened = step.ask("network_gemm.proof", proof_request(job, cells), max_bytes=limit)
    rows = accepted_rows(job, committed, cells, opened.body)
    if benchmark is None:
        why = "the network's script finds no GPU and ends there; the processor made a small product"
        return NetworkSaid(rows, None, reason=why)
    said = network_verdict(names, benchmark, committed, rows, answer.seconds)
    misled = "" if committed.n == n else f"matrices of {committed.n} rows, where {n} were asked for"
    credit = said.credited[0] if said.credited else names[0]
    other = "" if credit == names[0] else f"it is credited as {credit}, and says it is {names[0]}"
    reason = said.reason or other
    return NetworkSaid(rows, said.credited is not None, reason, misled, answer.seconds, said.needed)
