"""Nodes that die, lie, stall and babble while they are verified: named, bounded, nobody else's."""

import io
import os
import signal
import socket
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from starlette.types import Receive, Scope, Send

from tests.faults.children import SERVER
from tests.support.fleet import SMALL, WORKING, FleetHome, Machine, lost, served, told
from windrow.engine.fleet import tasks
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.inventory import InvalidFleet
from windrow.engine.fleet.stages import LOOK_SECONDS, STAGES, concerned
from windrow.pipelines.commands.named_queries import query_named
from windrow.pipelines.commands.node_table import print_nodes
from windrow.pipelines.fleet_sensor import whats_due
from windrow.resources.fleet.agent_service import agent_app
from windrow.resources.fleet.nodes import NodeAnswerTooLarge
from windrow.resources.fleet.turns import InTurn
from windrow.resources.gpu_turns import GpuTurns

GPU = {
    "index": 0,
    "uuid": "GPU-11111111-2222-3333-4444-555555555555",
    "name": "NVIDIA L40S",
    "vram_bytes": 48 << 30,
    "vram_used_bytes": 0,
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[FleetHome]:
    made = FleetHome.make(tmp_path / "windrow")
    yield made
    made.fleet.close()


def die_at_attestation(listening: socket.socket, hotkey: str, seed: bytes) -> None:
    """An agent that is killed in the middle of a check."""

    def die(_request: bytes) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    key = Ed25519PrivateKey.from_private_bytes(seed)
    app = agent_app(Machine({"attestation.commit": die}), hotkey=hotkey, callers=[hotkey], key=key)
    config = uvicorn.Config(app, log_level="critical", lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])


def test_an_agent_killed_in_the_middle_and_the_way_on(home: FleetHome) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    options = (home.hotkey, home.key.private_bytes_raw())
    child = SERVER.Process(target=die_at_attestation, args=(listening, *options))
    child.start()
    listening.close()
    other = Machine()
    with served(home.agent(other)) as healthy:
        home.declare({"n": port, "other": healthy}, WORKING)
        try:
            assert not home.verify("n")
            child.join(10)
        finally:
            child.kill()
        assert child.exitcode == -signal.SIGKILL
        found = home.standing("n")
        assert (found.state, found.stage) == ("failed", "attestation")
        assert found.reason == "NodeUnreachable"
        assert found.remaining == STAGES[3:7]
        # Nobody else's business.
        assert home.verify("other")
        assert home.standing("other").state == "verified"
    back = Machine()
    with served(home.agent(back)) as port:
        home.declare({"n": port}, WORKING)
        (due,) = whats_due(home.fleet.fleet(), home.lake, time.time() + 400)
        assert (due[0], due[1].stages) == ("n", STAGES[3:7])
        assert home.verify("n", due[1].stages)
    assert home.standing("n").state == "verified"
    assert "facts" not in back.asked


def fails(home: FleetHome, stage: str, reason: str, *words: str) -> None:
    """The node's run ends at a step with a reason, which the lake has too."""
    assert not home.verify()
    found = home.standing()
    assert (found.state, found.stage, found.reason) == ("failed", stage, reason)
    for word in words:
        assert word in found.detail
    rows = home.lake.query("SELECT stage, state FROM node_states WHERE node = 'n'").to_pylist()
    assert {"stage": stage, "state": "failed"} in rows
    assert not any(row["stage"] == "preflight" for row in rows if stage == "facts")


def test_a_node_that_is_slow(tmp_path: Path) -> None:
    work = replace(SMALL, look_seconds=0.3)
    home = FleetHome.make(tmp_path, work)

    def sleepy(request: bytes) -> bytes:
        time.sleep(1.0)
        return tasks.answer("facts", request)

    with served(home.agent(Machine({"facts": sleepy}))) as port:
        home.declare({"n": port})
        fails(home, "facts", "NodeTimedOut", "did not answer within")


async def gigabyte(_scope: Scope, receive: Receive, send: Send) -> None:
    """A gigabyte of zeros for whatever is asked, as long as anyone reads."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1024):
        await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def test_an_answer_of_a_gigabyte_is_not_read(home: FleetHome) -> None:
    with served(gigabyte) as port:
        home.declare({"n": port})
        node = home.fleet.access(home.fleet.node("n"))
        tracemalloc.start()
        with pytest.raises(NodeAnswerTooLarge):
            node.ask("facts", b"{}", timeout=10, max_bytes=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 << 20
        fails(home, "facts", "NodeAnswerTooLarge")


def test_a_node_that_answers_for_another(home: FleetHome) -> None:
    with served(home.agent(Machine(), key=Ed25519PrivateKey.generate())) as port:
        home.declare({"n": port})
        fails(home, "facts", "ForgedAnswer", "not signed by the agent key")


def test_an_agent_whose_clock_is_an_hour_off(home: FleetHome) -> None:
    with served(home.agent(Machine(), clock=lambda: time.time() - 3600)) as port:
        home.declare({"n": port})
        fails(home, "facts", "NodeRefused", "clock")


def test_a_machine_whose_clock_is_an_hour_off(home: FleetHome) -> None:
    """The agent's own process has the right time, the machine behind it has not."""

    def late(request: bytes) -> bytes:
        measured = from_json(tasks.answer("preflight", request))
        # What it reaches, it tells without a time.
        shifted = {"clock": measured["clock"] - 3600} if "clock" in measured else {}
        return to_json(measured | shifted)

    with served(home.agent(Machine({"preflight": late}))) as port:
        home.declare({"n": port}, ["chutes"])
        assert home.verify("n", STAGES[:3])
    rows = [row for row in home.checks() if row["check"] == "clock"]
    assert rows
    for row in rows:
        assert row["windrow_verdict"] is False
        assert abs(row["measured"]) == pytest.approx(3600, abs=5)


def test_a_gpu_that_fell_off_the_bus_between_two_looks(home: FleetHome) -> None:
    machine = Machine({"facts": told(gpus=[GPU, GPU | {"index": 1, "uuid": "GPU-2"}])})
    with served(home.agent(machine)) as port:
        home.declare({"n": port}, gpu="l40s", gpu_count=2)
        assert home.verify("n", STAGES[:2])
        assert home.refused() == {}
        machine.instead["facts"] = told(gpus=[GPU])
        assert home.verify("n", ["facts"])
    assert home.refused().keys() == {"drift_gpu_count", "drift_gpu_changed"}
    assert "GPU-2 is gone" in home.refused()["drift_gpu_changed"]
    (row,) = home.lake.query(
        "SELECT drift FROM nodes ORDER BY observed_at DESC LIMIT 1"
    ).to_pylist()
    assert len(row["drift"]) == 2


def test_a_card_nobody_knows_is_named(home: FleetHome) -> None:
    unknown = GPU | {"name": "NVIDIA X9000"}
    with served(home.agent(Machine({"facts": told(gpus=[unknown])}))) as port:
        home.declare({"n": port}, ["chutes"])
        assert home.verify("n", STAGES[:3])
        assert "a card nobody knows, and none is declared" in home.refused()["gpu_as_declared"]
        home.declare({"n": port}, ["chutes"], gpu="l40s", gpu_count=1)
        assert home.verify("n", STAGES[:3])
    assert home.refused()["drift_gpu"] == "l40s is declared, NVIDIA X9000 is seen"
    assert "gpu_kinds" not in home.refused()


def test_cards_of_two_kinds_are_named(home: FleetHome) -> None:
    other = GPU | {"index": 1, "uuid": "GPU-2", "name": "NVIDIA L4", "vram_bytes": 24 << 30}
    with served(home.agent(Machine({"facts": told(gpus=[GPU, other])}))) as port:
        home.declare({"n": port}, ["chutes"], gpu="l40s", gpu_count=2)
        assert home.verify("n", STAGES[:3])
    assert home.refused()["drift_gpu"] == "l40s is declared, l4 is seen"
    assert "kinds of card: NVIDIA L4, NVIDIA L40S" in home.refused()["gpu_kinds"]


@pytest.mark.parametrize("task", ["facts", "attestation.commit"])
def test_a_gpu_that_falls_off_the_bus_in_a_check(home: FleetHome, task: str) -> None:
    reason = "GpuLost" if task == "facts" else "DeviceFailed"
    with served(home.agent(Machine({task: lost(reason)}))) as port:
        home.declare({"n": port})
        fails(home, task.split(".")[0], reason)


def test_a_node_that_lies_about_sizes_and_sends_rubbish(home: FleetHome) -> None:
    def more(_request: bytes) -> bytes:
        described = '{"arrays":[["proofs","u1",[1,8,224]],["rows","i4",[1,8,1048576]]],"header":{}}'
        return described.encode() + b"\n" + bytes(4096)

    machine = Machine(
        {
            "gemm_proof.open": more,
            "attestation.commit": lambda _request: b'{"arrays":[],"header":{}}\n',
            "hash_challenge": lambda _request: b"[[[[",
            "proof_of_compute": lambda _request: b"\xff\xfe",
        }
    )
    with served(home.agent(machine)) as port:
        home.declare({"n": port}, WORKING)
        assert home.verify()
    assert home.refused().keys() >= {
        "attestation_fill",
        "gemm_product",
        "hash_solved",
        "poc_answer",
    }


def test_a_node_that_says_it_cannot_is_not_lost(home: FleetHome) -> None:
    with served(home.agent(Machine({"hash_challenge": lost("Unsolved")}))) as port:
        home.declare({"n": port}, WORKING)
        assert home.verify()
    assert "Unsolved" in home.refused()["hash_challenge"]
    assert home.standing().state == "verified"


@pytest.mark.parametrize(
    ("busy", "state", "wrong"), [(True, "unproven", 1), (False, "verified", 0)]
)
def test_who_always_says_it_is_busy_proves_nothing(
    home: FleetHome, *, busy: bool, state: str, wrong: int
) -> None:
    """The reason is the node's own word, and no verdict on it: nor is it a proof."""
    machine = Machine({"attestation.commit": lost("GpuBusy")} if busy else {})
    state = "unproven" if busy else "verified"
    with served(home.agent(machine)) as port:
        home.declare({"n": port})
        assert home.verify("n", concerned(STAGES, ()))
        out = Console(record=True, width=160, file=io.StringIO())
        assert print_nodes(out, home.lake, home.fleet.fleet(), ["n"]) == busy
    assert state in out.export_text()
    (row,) = home.lake.query(query_named("node_states_now").sql).to_pylist()
    assert (row["state"], row["wrong"]) == (state, 0)


def test_mining_and_verification_never_share_a_gpu(home: FleetHome, tmp_path: Path) -> None:
    turns = GpuTurns(tmp_path / "locks", ["0"])
    machine = InTurn(Machine(), "n", turns, wait=0.1)
    with served(home.agent(machine)) as port:
        home.declare({"n": port})
        with GpuTurns(tmp_path / "locks", ["0", "1"]).taken():
            assert home.verify()
        assert home.standing().busy == ("attestation",)
        later = time.time() + LOOK_SECONDS + 60
        ((_, what),) = whats_due(home.fleet.fleet(), home.lake, later)
        assert (what.reason, what.stages) == ("busy GPUs", STAGES[1:4])
        assert home.verify("n", what.stages)
        assert home.standing().busy == ()
    rows = [row for row in home.checks() if row["reason"].startswith("skipped")]
    assert "attestation" in {row["check"] for row in rows}
    assert all(row["windrow_verdict"] is None for row in rows)
    with turns.taken(0.0):  # and it was given back
        pass


def test_a_fleet_that_cannot_be_read_stops_nobody_who_knows_it(home: FleetHome) -> None:
    with served(home.agent(Machine())) as port:
        home.declare({"n": port})
        text = home.settings.fleet.read_text()
        home.settings.fleet.write_text(text + text.partition("nodes:\n")[2])
        with pytest.raises(InvalidFleet, match="the name n is there 2 times"):
            whats_due(home.fleet.fleet(), home.lake, time.time())
        assert not home.verify("n", STAGES[:1])
        assert home.standing().state == "new"
        home.settings.fleet.write_text(text)
        assert home.verify("n", STAGES[:1])
