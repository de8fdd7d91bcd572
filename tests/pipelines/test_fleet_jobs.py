"""The language-model job as an asset: over real agents, in a folder and in an S3 bucket."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import S3Place
from tests.support.fleet import SMALL, FleetHome, Machine, served, told
from tests.support.radosgw import KEY_ID, SECRET
from windrow.engine.fleet import facts, tasks
from windrow.engine.fleet.llm_job_answers import pack_answers
from windrow.engine.fleet.llm_job_model import MODELS_FOLDER, LocalModel
from windrow.engine.fleet.llm_job_objects import BUCKET_ENDPOINT
from windrow.engine.fleet.llm_job_requests import Request, read_request
from windrow.resources.fleet.access import Work
from windrow.resources.fleet.trusted import TrustedNodeFailed

DEMO = Path(__file__).parents[2] / "pipelines" / "demo" / "checkpoint"
WORK = Work(
    processor_prompts=6,
    processor_tokens=32,
    gpu_prompts=6,
    gpu_tokens=32,
    look_seconds=SMALL.seconds,
)
STEPS = ("facts", "llm_job")
GPU = {"index": 0, "uuid": "GPU-1", "name": "NVIDIA H200", "vram_bytes": 1, "vram_used_bytes": 0}
Run = Callable[..., FleetHome]


@pytest.fixture
def verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Declare node `n` and a trusted one, verify `n`, and give back its home."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "demo").symlink_to(DEMO)
    monkeypatch.setenv(MODELS_FOLDER, str(tmp_path / "models"))
    with ExitStack() as stack:

        def run(machine: Machine, trusted: Machine | None = None, **variables: str) -> FleetHome:
            home = FleetHome.make(
                tmp_path / "home", WORK, WINDROW_TRUSTED_NODE="trusted", **variables
            )
            stack.callback(home.fleet.close)
            ports = {
                name: stack.enter_context(served(home.agent(asked)))
                for name, asked in (("n", machine), ("trusted", trusted or Machine()))
            }
            home.declare(ports, ["compute-horde"], models=[{"name": "demo"}])
            assert home.verify("n", STEPS)
            return home

        yield run


def proof(home: FleetHome) -> dict[str, Any]:
    (row,) = home.lake.query("SELECT * FROM attestations WHERE kind = 'llm_job'").to_pylist()
    return dict(row) | {"replay": json.loads(row["replay"])}


def verdicts(home: FleetHome) -> dict[str, bool | None]:
    rows = [row for row in home.checks() if row["stage"] == "llm_job"]
    return {row["check"]: row["windrow_verdict"] for row in rows}


def test_a_node_answers_over_its_own_line_where_jobs_lie_in_folders(
    verified: Run, tmp_path: Path
) -> None:
    home = verified(Machine(), WINDROW_ANSWER_BUCKET=str(tmp_path / "answers"))
    assert verdicts(home) == {
        "cards": None,
        "device": None,
        "llm_answers": True,
        "llm_time": True,
    }
    row = proof(home)
    assert row["passed"]
    assert (row["replay"]["bits"], row["replay"]["equal"]) == (32, 6)
    assert "upload" not in row["replay"]
    job = row["replay"]["job"]
    assert (Path(home.settings.job_bucket) / "jobs" / f"{job}.json").exists()
    assert (tmp_path / "answers" / "jobs" / job / "answer.frame").exists()


def test_a_node_is_shown_its_objects_where_jobs_lie_on_s3(
    verified: Run,
    s3: S3Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(BUCKET_ENDPOINT, s3.url)
    asked: list[bytes] = []

    def act(request: bytes) -> bytes:
        asked.append(request)
        return tasks.answer("llm_job", request)

    with caplog.at_level(logging.DEBUG):
        home = verified(
            Machine({"llm_job": act}),
            WINDROW_JOB_BUCKET=f"s3://{s3.bucket}",
            WINDROW_BUCKET_ENDPOINT=s3.url,
            WINDROW_BUCKET_PATH_STYLE="yes",
            WINDROW_BUCKET_WRITE_KEY_ID=KEY_ID,
            WINDROW_BUCKET_WRITE_SECRET=SECRET,
        )
    assert verdicts(home) == {
        "cards": None,
        "device": None,
        "llm_upload": True,
        "llm_answers": True,
        "llm_time": True,
    }
    row = proof(home)
    assert row["passed"]
    assert row["replay"]["upload"] > 0
    job = row["replay"]["job"]
    keys = [info.key for info in s3.direct().list()]
    assert {key.partition("/")[0] for key in keys} == {"commitments", "jobs", "series"}
    assert f"jobs/{job}/upload.json" in keys

    _, shown = map(json.loads, asked)
    for url in (shown["volume"]["url"], shown["upload"]["url"]):
        signature = url.partition("X-Amz-Signature=")[2][:64]
        assert len(signature) == 64
        assert signature not in caplog.text
        for file in home.settings.lake.rglob("*.parquet"):
            assert signature.encode() not in file.read_bytes()


def test_a_node_that_cannot_reach_the_bucket_is_a_finding(
    verified: Run, s3: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BUCKET_ENDPOINT, raising=False)
    home = verified(
        Machine(),
        WINDROW_JOB_BUCKET=f"s3://{s3.bucket}",
        WINDROW_BUCKET_ENDPOINT=s3.url,
        WINDROW_BUCKET_PATH_STYLE="yes",
        WINDROW_BUCKET_WRITE_KEY_ID=KEY_ID,
        WINDROW_BUCKET_WRITE_SECRET=SECRET,
    )
    reason = home.refused()["llm_job"]
    assert "AddressRefused" in reason
    assert f"set {BUCKET_ENDPOINT} here" in reason
    assert s3.url not in reason


@pytest.fixture
def _known_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job whose texts differ in 16 bits, which by chance not all jobs' do."""
    drawn = SimpleNamespace(token_hex=lambda size: "ab" * size)
    monkeypatch.setattr("windrow.assets.fleet.llm_job.secrets", drawn)


def low(request: bytes) -> bytes:
    """A GPU's answer: in the numbers that the model's files are in."""
    asked = read_request(request)
    if not isinstance(asked, Request):
        return tasks.answer("llm_job", request)
    model = LocalModel(DEMO, "cpu", dtype=torch.bfloat16)
    return pack_answers(asked, *model.answer(asked))


@pytest.mark.usefixtures("_known_secret")
def test_16_bits_are_allowed_for_where_a_node_has_a_gpu(verified: Run) -> None:
    home = verified(Machine({"facts": told(gpus=[GPU]), "llm_job": low}))
    row = proof(home)
    assert row["passed"], home.refused()
    assert row["replay"]["bits"] == 16
    assert row["replay"]["equal"] < 6


@pytest.mark.usefixtures("_known_secret")
def test_16_bits_are_not_allowed_for_where_a_node_has_none(verified: Run) -> None:
    home = verified(Machine({"llm_job": low}))
    assert "log-probability" in home.refused()["llm_answers"]
    assert proof(home)["replay"]["bits"] == 32


def test_without_the_trusted_nodes_model_nothing_is_said(verified: Run, tmp_path: Path) -> None:
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_FOLDER, str(tmp_path))
        home = verified(machine)
    assert "llm_job" not in machine.asked
    (row,) = [row for row in home.checks() if row["check"] == "llm_job"]
    assert (row["windrow_verdict"], "trusted node" in row["reason"]) == (None, True)


def test_the_trusted_node_itself_is_skipped_and_says_why(verified: Run) -> None:
    home = verified(Machine())
    assert home.verify("trusted", STEPS)
    (row,) = [row for row in home.checks("trusted") if row["check"] == "llm_job"]
    assert (row["windrow_verdict"], row["network_verdict"]) == (None, None)
    assert "trusted is the trusted node itself" in row["reason"]


def test_runs_take_turns_at_the_trusted_node(verified: Run) -> None:
    """Its agent does one task at a time and refuses the other, which is no verdict on anyone."""
    asked = threading.Event()

    def slow(request: bytes) -> bytes:
        asked.set()
        time.sleep(0.5)
        return tasks.answer("facts", request)

    home = verified(Machine(), trusted=Machine({"preflight": slow}))
    node, request = home.fleet.node("n"), facts.challenge()
    options = {"timeout": 20.0, "max_bytes": facts.MAX_ANSWER}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(home.fleet.trusted(node).ask, "preflight", request, **options)
        assert asked.wait(5)
        with home.fleet.alone("trusted"):  # as a step of its own verification takes it
            assert first.done()
        assert first.result().body
        with home.fleet.alone("trusted"):
            waiting = pool.submit(home.fleet.trusted(node).ask, "facts", request, **options)
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
        assert waiting.result().body
        with home.fleet.alone("trusted"), pytest.raises(TrustedNodeFailed, match="another run"):
            home.fleet.trusted(node).ask("facts", request, timeout=0.2, max_bytes=facts.MAX_ANSWER)
