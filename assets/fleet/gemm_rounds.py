"""The two rounds of a matrix product, asked and judged, beside what the network's own shows."""

import hashlib
import json
import secrets
import time

import numpy as np

from windrow.assets.fleet.gemm_network import ask_as_network
from windrow.assets.fleet.stage import Stage
from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.gemm_proof import (
    MAX_ROWS,
    BadProof,
    Product,
    commit_request,
    committed,
    error_probability,
    open_request,
    verify,
)


def prove_product(step: Stage, network: str) -> None:
    """Ask, verify, and leave checks and proofs with the step. Raises NodeError.

    Each GPU's row has the network's verdict on its own product, and Windrow's on the one of full
    entropy; a row of the whole node has what the network would credit.
    """
    gpus = step.facts().gpus
    work = step.fleet.work
    asked = Product(
        secrets.token_hex(32),
        work.gpu_matrix if gpus else work.processor_matrix,
        tuple(range(len(gpus))) or (0,),
    )
    first = step.ask("gemm_proof.commit", commit_request(asked), max_bytes=1 << 16)
    count = min(work.rows, MAX_ROWS)
    rows = sorted(secrets.SystemRandom().sample(range(asked.n), count))
    limit = len(asked.gpus) * count * 8 * asked.n + (1 << 16)
    second = step.ask("gemm_proof.open", open_request(asked, rows), max_bytes=limit)
    seed = secrets.token_bytes(32)
    words = np.frombuffer(hashlib.shake_256(seed).digest(8 * asked.n), np.uint64)
    began = time.process_time()
    backend = None
    try:
        roots = committed(asked, first.body)
        backend = roots.backend
        wrong = verify(asked, roots, rows, second.body, words)
    except BadProof as error:
        wrong = dict.fromkeys(asked.gpus, str(error))
    spent = time.process_time() - began
    step.note_cards([] if backend == "cpu" else None)
    said = ask_as_network(step)
    step.checks.append(said.check(network, not any(wrong.values())))
    for index, reason in wrong.items():
        uuid = gpus[index].uuid if gpus else None
        step.checks.append(
            NodeCheck(
                "gemm_product",
                network,
                said.rows.get(index),
                not reason,
                measured=first.seconds,
                unit="s",
                reason=reason,
                remedy="compute the whole product with the matrices of the seed" if reason else "",
                gpu=uuid,
            )
        )
        step.proof(
            gpu_uuid=uuid,
            backend=backend,
            driver=step.facts().driver,
            seed=asked.session,
            size=asked.n,
            bytes=6 * asked.n**2,
            operations=asked.operations / len(asked.gpus),
            seconds=first.seconds,
            verify_seconds=spent / len(wrong),
            error_probability=error_probability(count),
            passed=not reason,
            replay=json.dumps({"session": asked.session, "rows": rows, "seed": seed.hex()}),
        )
