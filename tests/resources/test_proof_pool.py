"""Proofs by workers: those of this process, whatever happens to a worker."""

import contextlib
import os
import shutil
import signal
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.proof_workers import no_worker_left, pids, pool_of, stopped
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.engine.forward import InvalidSequence
from windrow.engine.ports import Proof, ProofCancelled
from windrow.engine.proving import ModelProver
from windrow.resources.checkpoints.files import (
    VerifiedCheckpoint,
    WrongHash,
    verify_checkpoint,
)
from windrow.resources.models.loading import load_checkpoint
from windrow.resources.proof_pool import client as proof_worker_client
from windrow.resources.proof_pool.client import (
    Limits,
    ProofWorkerLost,
    RemoteWorker,
    WorkerDied,
    WorkerHung,
)
from windrow.resources.proof_pool.frames import decode, encode
from windrow.resources.proof_pool.pool import NoSuchGpu, ProofPool
from windrow.resources.proof_pool.processes import scrubbed, workers_at
from windrow.resources.proof_pool.service import ProofService

COEFFICIENTS = np.arange(-120, 120, 15, dtype=np.int8)
SEQUENCES = [
    np.random.default_rng(n).integers(3, 600, 60 + 7 * n).astype(np.int32) for n in range(16)
]
PROMPTS = [20] * 16
SECRETS = {
    "BT_WALLET_PASSWORD": "secret-of-the-wallet",
    "R2_WRITE_SECRET_ACCESS_KEY": "secret-of-the-bucket",
    "WINDROW_WALLET_URI": "//secret-key",
    "HF_TOKEN": "secret-of-the-hub",
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return verify_checkpoint(make_tiny_checkpoint(tmp_path_factory.mktemp("first")))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    """Of the same shape, with other weights."""
    folder = tmp_path_factory.mktemp("second")
    return verify_checkpoint(make_tiny_checkpoint(folder, seed=1, window=30))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where two workers listen, started by a run that had secrets; its name is a long one."""
    place = tmp_path_factory.mktemp("home") / ("folder-with-a-name-longer-than-a-socket-" * 4)
    with no_worker_left(place), pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        yield place


def expected(checkpoint: VerifiedCheckpoint) -> list[Proof]:
    """What one process proves with one thread, as the workers do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        prover = ModelProver(load_checkpoint(checkpoint).model)
        return prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS)
    finally:
        torch.set_num_threads(threads)


def assert_equal(proofs: Sequence[Proof], others: Sequence[Proof]) -> None:
    for ours, theirs in zip(proofs, others, strict=True):
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=2e-5)
        assert np.mean(ours.sketches == theirs.sketches) > 0.99


def test_processes_prove_what_this_process_proves(folder: Path, first: VerifiedCheckpoint) -> None:
    prover = pool_of(folder).prover(first)
    assert prover.lanes == 2
    assert (prover.placement.device, prover.placement.dtype) == ("cpu", "float32")
    proofs = [None, None]

    def prove(lane: int) -> None:
        proofs[lane] = prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS)

    lanes = [threading.Thread(target=prove, args=(lane,)) for lane in range(2)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    for made in proofs:
        assert_equal(made, expected(first))


def test_a_later_run_finds_the_same_workers_and_changes_their_weights_in_place(
    folder: Path, first: VerifiedCheckpoint, second: VerifiedCheckpoint
) -> None:
    pool_of(folder).prover(first)
    before, reloads = pids(folder), workers_at(folder)["cpu-0"]["reloads_in_place"]
    prover = pool_of(folder).prover(second)
    assert_equal(prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS), expected(second))
    said = workers_at(folder)
    assert {name: worker["pid"] for name, worker in said.items()} == before
    assert {worker["weights_hash"] for worker in said.values()} == {second.weights_hash}
    assert said["cpu-0"]["reloads_in_place"] == reloads + 1


def test_a_worker_holds_no_secret_and_nobody_else_can_reach_it(
    folder: Path, first: VerifiedCheckpoint
) -> None:
    pool_of(folder).prover(first)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for pid in pids(folder).values():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"OMP_NUM_THREADS" in environment
        assert b"CUDA_VISIBLE_DEVICES=\x00" in environment
        for name, value in SECRETS.items():
            assert name.encode() not in environment
            assert value.encode() not in environment + command


def test_errors_of_a_worker_come_back_under_their_names(
    folder: Path, first: VerifiedCheckpoint
) -> None:
    prover = pool_of(folder).prover(first)
    before = pids(folder)
    with pytest.raises(InvalidSequence, match="600"):
        prover.prove([np.full(40, 600, np.int32)], [5], COEFFICIENTS)
    assert pids(folder) == before


def test_a_folder_that_changed_since_it_was_verified_is_found_out(
    folder: Path, first: VerifiedCheckpoint, second: VerifiedCheckpoint, tmp_path: Path
) -> None:
    place = tmp_path / "checkpoint"
    shutil.copytree(first.directory, place)
    verified = replace(verify_checkpoint(place), notes=())
    for path in second.directory.glob("*.safetensors"):
        shutil.copy(path, place)
    pool = pool_of(folder)
    pool.prover(second)
    with pytest.raises(WrongHash, match="was changed since"):
        pool.prover(verified)
    proofs = pool.prover(first).prove(SEQUENCES, PROMPTS, COEFFICIENTS)
    assert_equal(proofs, expected(first))


def test_a_call_told_to_stop_does_not_wait_for_its_worker(
    folder: Path, first: VerifiedCheckpoint
) -> None:
    prover = pool_of(folder).prover(first)
    with stopped(pids(folder)["cpu-0"]):
        timer = threading.Timer(0.5, prover.cancel)
        timer.start()
        with pytest.raises(ProofCancelled):
            prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS)
    proofs = prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS)
    assert_equal(proofs, expected(first))


def test_workers_killed_in_the_middle_of_a_batch_are_replaced(
    folder: Path, first: VerifiedCheckpoint
) -> None:
    prover = pool_of(folder).prover(first)
    before = pids(folder)
    os.kill(before["cpu-0"], signal.SIGSTOP)  # the middle lasts as long as we like
    threading.Timer(0.5, os.kill, (before["cpu-0"], signal.SIGKILL)).start()
    proofs = prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS)
    assert_equal(proofs, expected(first))
    after = pids(folder)
    assert after["cpu-0"] != before["cpu-0"]
    assert after["cpu-1"] == before["cpu-1"]


def test_threads_of_this_process_share_a_model(
    first: VerifiedCheckpoint, second: VerifiedCheckpoint
) -> None:
    pool = ProofPool.in_process(["cpu", "cpu"])
    for checkpoint in (first, second):
        prover = pool.prover(checkpoint)
        assert prover.lanes == 2
        assert_equal(prover.prove(SEQUENCES, PROMPTS, COEFFICIENTS), expected(checkpoint))


class Impostor:
    """A host whose worker answers what a test says, one answer a question; None is a hang."""

    name = "impostor"

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.replaced = 0

    def ask(self, frame: bytes, seconds: float, told_to_stop: threading.Event) -> bytes:
        answer = self.answers.pop(0)
        if answer is None:
            raise WorkerHung("it sleeps")
        return answer

    def replace(self) -> None:
        self.replaced += 1


def honest(checkpoint: VerifiedCheckpoint) -> bytes:
    question = {"op": "load", "weights": checkpoint.weights_hash}
    return ProofService("cpu").answer(encode(question | {"directory": str(checkpoint.directory)}))


def test_wrong_weights_wrong_shapes_and_silence_cost_a_worker_its_place(
    first: VerifiedCheckpoint, second: VerifiedCheckpoint
) -> None:
    loaded = honest(first)
    answer = {"ok": True, "weights": first.weights_hash}
    proof = [np.zeros(30, np.int32), np.zeros(30, np.float32)]
    cases: list[bytes | None] = [
        encode(answer | {"weights": second.weights_hash}, proof),
        encode(answer, proof[:1]),
        encode(answer, proof[::-1]),
        encode(answer, [proof[0][:29], proof[1]]),
        b"garbage",
        None,
    ]
    for wrong in cases:
        host = Impostor(loaded, wrong, loaded, encode(answer, proof))
        worker = RemoteWorker(host, Limits())
        (made,) = worker.prove(first, [SEQUENCES[0][:30]], [5], COEFFICIENTS, threading.Event())
        assert made.logprobs.tolist() == [0.0] * 30
        assert (host.replaced, host.answers) == (1, [])


def test_a_worker_that_never_works_is_named_with_its_last_failure(
    first: VerifiedCheckpoint,
) -> None:
    host = Impostor(*[None] * proof_worker_client.ATTEMPTS)
    with pytest.raises(ProofWorkerLost, match=r"failed 3 times.*WorkerHung: it sleeps"):
        RemoteWorker(host, Limits()).load(first, threading.Event())


def test_a_process_that_cannot_start_is_named_with_its_last_words(
    first: VerifiedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    (broken / "torch").mkdir(parents=True)
    (broken / "numpy.py").write_text("raise RuntimeError('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    place = tmp_path / "workers"
    with no_worker_left(place), pytest.raises(ProofWorkerLost, match="no such library"):
        pool_of(place, 1).prover(first)


def test_a_service_refuses_what_it_cannot_answer(first: VerifiedCheckpoint) -> None:
    service = ProofService("cpu")
    named = {"directory": str(first.directory), "weights": first.weights_hash}
    for question in (
        b"",
        encode({"op": "sign"}),
        encode({"op": "load", "directory": 7, "weights": "x"}),
        encode({"op": "prove", **named, "prompt_lengths": [5]}, [COEFFICIENTS]),
        encode({"op": "prove", **named, "prompt_lengths": ["5"]}, [COEFFICIENTS, SEQUENCES[0]]),
        encode({"op": "prove", **named, "prompt_lengths": [5]}, [SEQUENCES[0], SEQUENCES[0]]),
    ):
        answer = decode(service.answer(question)).header
        assert (answer["ok"], answer["error"]) == (False, "MalformedFrame")


def test_each_gpu_worker_sees_one_gpu_of_those_this_process_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-1a2b")
    pool = ProofPool.processes(tmp_path, ["cuda:1", "cuda:0"])
    hosts = [worker._host for worker in pool.workers]
    assert [host._name for host in hosts] == ["gpu-GPU-1a2b", "gpu-5"]
    assert [host._environment["CUDA_VISIBLE_DEVICES"] for host in hosts] == ["GPU-1a2b", "5"]
    assert {host._device for host in hosts} == {"cuda:0"}
    with pytest.raises(NoSuchGpu, match="cuda:2"):
        ProofPool.processes(tmp_path, ["cuda:2"])


def test_only_what_a_worker_needs_is_kept_of_an_environment() -> None:
    given = SECRETS | {"PATH": "/bin", "OMP_NUM_THREADS": "3", "CUDA_HOME": "/cuda", "S3_KEY": "x"}
    assert scrubbed(given, "2", 8) == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "3",
        "CUDA_HOME": "/cuda",
        "CUDA_VISIBLE_DEVICES": "2",
        "HF_HUB_OFFLINE": "1",
    }
    assert scrubbed({}, "", 8)["OMP_NUM_THREADS"] == "8"


def test_a_worker_that_nobody_asks_ends_by_itself(
    first: VerifiedCheckpoint, tmp_path: Path
) -> None:
    place = tmp_path / "workers"
    pool = ProofPool.processes(place, ["cpu"], idle_seconds=1.0)
    with no_worker_left(place):
        host = pool.workers[0]._host
        with contextlib.suppress(WorkerDied):
            host.ask(encode({"op": "hello"}), 60.0, threading.Event())
        host._worker.close()
        host._worker = None
        assert host._started.wait(60) == 0
        assert list(place.glob("*.sock")) == []
