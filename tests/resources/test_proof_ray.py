"""Proofs on a Ray cluster of two nodes, one of which is killed."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.processes import ENVIRONMENT
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.engine.forward import InvalidSequence
from windrow.engine.proving import ModelProver
from windrow.pipelines.live import inference
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.configuration.settings import Settings
from windrow.resources.models.loading import load_checkpoint
from windrow.resources.proof_pool.client import Limits
from windrow.resources.proof_pool.frames import decode, encode
from windrow.resources.proof_pool.pool import ProofPool

pytestmark = pytest.mark.live
OBJECT_STORE = 80 * 1024 * 1024
COEFFICIENTS = np.arange(-120, 120, 15, dtype=np.int8)
SEQUENCES = [
    np.random.default_rng(n).integers(3, 600, 60 + 7 * n).astype(np.int32) for n in range(16)
]
PROMPTS = [20] * 16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return verify_checkpoint(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each, so that every node has room for one worker."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
        patch.setenv("WINDROW_WALLET_URI", "//secret-key")
        import ray
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE}
        nodes = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        nodes.add_node(**node)
        try:
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


def assert_proved(pool: ProofPool, checkpoint: VerifiedCheckpoint) -> None:
    prover = pool.prover(checkpoint)
    expected = ModelProver(load_checkpoint(checkpoint).model)
    for _ in range(prover.lanes):  # each worker's turn
        proofs = prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS)
        others = expected.prove(SEQUENCES, PROMPTS, COEFFICIENTS)
        for ours, theirs in zip(proofs, others, strict=True):
            np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=2e-5)
            assert np.mean(ours.sketches == theirs.sketches) > 0.99


def processes(pool: ProofPool) -> list[int]:
    """Process of each worker; a node has room for one."""
    question = encode({"op": "hello"})
    answers = [w._host.ask(question, 60.0, threading.Event()) for w in pool.workers]
    return [decode(answer).header["pid"] for answer in answers]


def test_two_nodes_prove_and_a_killed_one_is_made_up_for(
    cluster: Any, checkpoint: VerifiedCheckpoint, tmp_path: Path
) -> None:
    pool = ProofPool.ray(cluster.address, 2, "cpu", Limits(prove_seconds=120, load_seconds=300))
    assert_proved(pool, checkpoint)
    with pytest.raises(InvalidSequence, match="600"):
        pool.prover(checkpoint).prove([np.full(40, 600, np.int32)], [5], COEFFICIENTS)
    placed = processes(pool)

    cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
    assert_proved(pool, checkpoint)
    after = processes(pool)
    assert len(set(placed) & set(after)) == 1  # the other node's stayed

    settings = {
        "WINDROW_HOME": str(tmp_path),
        "WINDROW_PROOF_RAY": cluster.address,
        "WINDROW_PROOF_RAY_GPU": "no",
        "WINDROW_PROOF_WORKERS": "2",
    }
    again = inference(Settings.read(settings))._proofs
    assert again is not None
    assert_proved(again, checkpoint)
    assert processes(again) == after


def test_a_worker_keeps_no_secret_of_its_node(
    cluster: Any,
) -> None:
    from windrow.resources.proof_pool.ray_workers import ProofActor

    before = dict(os.environ)
    try:
        ProofActor("cpu")
        assert "WINDROW_WALLET_URI" not in os.environ
        assert "PATH" in os.environ
    finally:
        os.environ.clear()
        os.environ.update(before)
