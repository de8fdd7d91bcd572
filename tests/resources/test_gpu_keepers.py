"""A verification on GPUs whose memory a server or a worker of ours keeps: skipped, and named."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import FleetHome, Machine, served
from windrow.engine.fleet.stages import GPU_BUSY
from windrow.pipelines import fleet_parts
from windrow.pipelines.fleet_parts import machine_turns
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.nodes import TaskFailed
from windrow.resources.fleet.turns import InTurn
from windrow.resources.generation.process import ServerProcess
from windrow.resources.gpu_keepers import keepers, worker_keeps
from windrow.resources.gpu_turns import GpuTurns
from windrow.resources.proof_pool.frames import decode, encode
from windrow.resources.proof_pool.service import ProofService
from windrow.resources.proof_pool.unix_socket import listening

ASK = {"timeout": 5.0, "max_bytes": 1 << 20}
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine of two GPUs, as far as CUDA_VISIBLE_DEVICES says."""
    monkeypatch.setattr(fleet_parts, "visible_gpus", lambda: ("0", "1"))
    return Settings.read({"WINDROW_HOME": str(tmp_path)})


@pytest.fixture
def server(settings: Settings) -> Iterator[ServerProcess]:
    """A generation server on GPU 1 that its run has left."""
    made = ServerProcess("sglang-30000", settings.home / "servers", grace_seconds=0.5)
    made.start(SLEEP, {"CUDA_VISIBLE_DEVICES": "1"}, "any", ready=lambda: None, seconds=5)
    yield made
    made.stop()


def asked(settings: Settings, task: str = "proof_of_compute") -> bytes:
    """A task asked of this machine in its turn."""
    machine = Machine({"proof_of_compute": lambda request: request})
    node = InTurn(machine, "here", machine_turns(settings), wait=0.0)
    try:
        return node.ask(task, b"x", **ASK).body  # type: ignore[arg-type]
    finally:
        node.close()


def test_a_server_that_outlives_its_run_is_seen(settings: Settings, server: ServerProcess) -> None:
    with pytest.raises(
        TaskFailed, match=r"sglang-30000 \(process \d+\).* GPU 1 .*windrow stop"
    ) as e:
        asked(settings)
    assert e.value.reason == GPU_BUSY
    assert asked(settings, "ping") == b"x"
    with GpuTurns(settings.home / "locks", ["0", "1"]).taken(0.0):  # a window, which uses it
        pass
    server.stop()
    assert asked(settings) == b"x"


def test_a_server_on_other_gpus_is_in_nobodys_way(
    settings: Settings, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_parts, "visible_gpus", lambda: ("0",))
    assert asked(settings) == b"x"


def test_processors_are_shared_with_a_server(tmp_path: Path, settings: Settings) -> None:
    made = ServerProcess("vllm-30001", settings.home / "servers", grace_seconds=0.5)
    made.start(SLEEP, {"CUDA_VISIBLE_DEVICES": ""}, "any", ready=lambda: None, seconds=5)
    try:
        assert keepers(settings.home) == []
        assert asked(settings) == b"x"
    finally:
        made.stop()


def test_a_server_of_an_older_record_may_be_anywhere(
    settings: Settings, server: ServerProcess
) -> None:
    state = settings.home / "servers" / "sglang-30000.json"
    record = json.loads(state.read_text())
    assert record.pop("gpus") == "1"
    state.write_text(json.dumps(record))
    (kept,) = keepers(settings.home)
    assert kept.gpus is None
    with pytest.raises(TaskFailed, match="GPU 0, 1"):
        asked(settings)


def test_a_worker_keeps_its_gpu_once_it_has_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7")
    said = decode(ProofService("cuda:0").answer(encode({"op": "hello"}))).header
    assert worker_keeps("gpu-GPU-7", said) == []
    (kept,) = worker_keeps("gpu-GPU-7", said | {"weights_hash": "ab"})
    assert kept.gpus == ("GPU-7",)
    assert f"process {os.getpid()}" in kept.what
    assert "half an hour" in kept.remedy
    on_processor = decode(ProofService("cpu").answer(encode({"op": "hello"}))).header
    assert worker_keeps("cpu-0", on_processor | {"weights_hash": "ab"}) == []
    assert worker_keeps("cpu-0", {}) == []


def test_a_worker_that_hangs_may_keep_any_gpu(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windrow.resources.gpu_keepers.HELLO_SECONDS", 0.2)
    with (
        listening(settings.home / "proof-workers", "gpu-0"),
        pytest.raises(TaskFailed, match=r"gpu-0, which does not answer, .* GPU 0, 1"),
    ):
        asked(settings)
    assert asked(settings) == b"x"


def test_a_step_that_meets_a_server_is_skipped_with_its_name(
    tmp_path: Path, settings: Settings, server: ServerProcess
) -> None:
    home = FleetHome.make(tmp_path / "fleet")
    machine = InTurn(Machine(), "n", machine_turns(settings), wait=0.0)
    with served(home.agent(machine)) as port:
        home.declare({"n": port})
        assert home.verify("n", ["inventory", "facts"])
        assert home.verify("n", ["attestation"])
    home.fleet.close()
    (row,) = [row for row in home.checks() if row["check"] == "attestation"]
    assert (row["network_verdict"], row["windrow_verdict"]) == (None, None)
    assert "sglang-30000" in row["reason"]
    assert "windrow stop" in row["reason"]
