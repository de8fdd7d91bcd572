"""Messages, logins, requests and flows of jobs, where the network is too kind."""

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from bittensor_core import Keypair

from windrow.networks.compute_horde import hash_jobs, llm_samples, logins, requests, volumes
from windrow.networks.compute_horde import messages as wire
from windrow.networks.compute_horde.classes import (
    CLASSES,
    network_limits,
    network_weights,
    strict_weights,
)
from windrow.networks.compute_horde.job_flow import (
    OUT_OF_ORDER,
    Arrival,
    JobTerms,
    network_flow,
    strict_flow,
)
from windrow.networks.compute_horde.signing import written

JOB = "7f4f14bd-bee7-497c-8b2b-992f4fc209ed"
ALICE, BOB = Keypair.create_from_uri("//Alice"), Keypair.create_from_uri("//Bob")
TERMS = JobTerms(
    JOB,
    "always_on.llm.a6000",
    wire.Timing(
        allowed_leeway=5,
        download_time_limit=10,
        execution_time_limit=30,
        upload_time_limit=10,
        streaming_start_time_limit=5,
    ),
    value=50,
    blocks=(1, 2),
)
STEPS: tuple[wire.OfMiner, ...] = (
    wire.AcceptJob(job_uuid=JOB),
    wire.ExecutorReady(job_uuid=JOB),
    wire.VolumesReady(job_uuid=JOB),
    wire.ExecutionDone(job_uuid=JOB),
    wire.JobFinished(job_uuid=JOB, docker_process_stdout="ok", docker_process_stderr=""),
)


def arrivals(*times: float) -> list[Arrival]:
    return [Arrival(at, step) for at, step in zip(times, STEPS, strict=True)]


def test_an_honest_job_is_paid_the_seconds_it_worked() -> None:
    made = strict_flow(TERMS, arrivals(1, 3, 8, 30, 33))
    assert (made.result, made.work_seconds) == ("completed", 30)
    assert (made.sent[-1].score, made.sent[-1].blocks) == ("30.000000", (1, 2))
    assert network_flow(TERMS, arrivals(1, 3, 8, 30, 33)).sent[-1].score == "50.000000"


def test_a_burst_is_paid_by_the_network_alone() -> None:
    burst = arrivals(0.2, 0.2, 0.2, 0.2, 0.2)
    assert network_flow(TERMS, burst).sent[-1].score == "50.000000"
    made = strict_flow(TERMS, burst)
    assert made.result == OUT_OF_ORDER
    assert (made.sent[-1].score, made.sent[-1].blocks) == ("0.000000", ())


def test_messages_out_of_order_end_a_job() -> None:
    shuffled = arrivals(1, 3, 15, 10, 33)
    assert network_flow(TERMS, shuffled).result == "completed"
    assert strict_flow(TERMS, shuffled).result == OUT_OF_ORDER


def test_forged_instants_are_paid_as_instants() -> None:
    made = strict_flow(TERMS, arrivals(0.01, 0.02, 0.03, 0.04, 0.05))
    assert made.sent[-1].score == "0.030000"


def test_an_executor_may_be_ready_as_soon_as_it_is_accepted() -> None:
    assert strict_flow(TERMS, arrivals(1, 1, 1, 30, 30)).result == "completed"


def test_work_never_pays_more_than_was_agreed() -> None:
    made = strict_flow(replace(TERMS, value=10), arrivals(1, 3, 8, 30, 33))
    assert made.sent[-1].score == "10.000000"


@pytest.mark.parametrize(
    ("kept", "reason", "at"),
    [
        (0, "initial_response_timed_out", 7),
        (1, "executor_readiness_response_timed_out", 1 + 35),
        (2, "volumes_timed_out", 3 + 15),
        (3, "execution_timed_out", 3 + 45),
        (4, "final_response_timed_out", 3 + 55),
    ],
)
def test_silence_ends_each_stage(kept: int, reason: str, at: float) -> None:
    for flow in (network_flow, strict_flow):
        made = flow(TERMS, arrivals(1, 3, 8, 30, 33)[:kept])
        assert (made.result, made.reason, made.at) == ("timed_out", reason, at)
        assert made.sent[-1].score == "0.000000"


FILE = {"volume_type": "single_file", "url": "https://a.example/x", "relative_path": "x"}


def job(**changes: Any) -> str:
    return json.dumps(
        {
            "message_type": "V0JobRequest",
            "job_uuid": JOB,
            "executor_class": "always_on.test",
            "docker_image": "i",
            "docker_run_options_preset": "none",
            "docker_run_cmd": [],
        }
        | changes
    )


@pytest.mark.parametrize(
    "changes",
    [
        {
            "volume": {
                "volume_type": "single_file",
                "url": "file:///etc/passwd",
                "relative_path": "x",
            }
        },
        {
            "volume": {
                "volume_type": "single_file",
                "url": "https://a.example/x",
                "relative_path": "../x",
            }
        },
        {"volume": {"volume_type": "zip_url", "contents": "https://169.254.169.254/latest"}},
        {"volume": {"volume_type": "zip_url", "contents": "https://[::1"}},
        {"output_upload": {"output_upload_type": "zip_and_http_put", "url": "https://localhost/x"}},
        {
            "output_upload": {
                "output_upload_type": "multi_upload",
                "uploads": [],
                "system_output": {
                    "output_upload_type": "zip_and_http_put",
                    "url": "http://x.example",
                },
            }
        },
    ],
)
def test_hosts_and_paths_are_looked_at(changes: dict[str, Any]) -> None:
    wire.read_message("validator_to_miner", job(**changes))
    with pytest.raises(wire.MalformedMessage):
        wire.read_strictly("validator_to_miner", job(**changes))


def test_a_public_file_is_a_volume() -> None:
    file = volumes.SingleFile(url="https://files.example/a.bin", relative_path="a/b.bin")
    assert volumes.problem(file) == ""
    text = job(volume=file.model_dump())
    assert wire.read_strictly("validator_to_miner", text).job_uuid == JOB


def test_negative_manifests_are_refused() -> None:
    text = json.dumps(
        {"message_type": "V0ExecutorManifestRequest", "manifest": {"always_on.test": -4}}
    )
    wire.read_message("miner_to_validator", text)
    with pytest.raises(wire.MalformedMessage, match="-4 executors"):
        wire.read_strictly("miner_to_validator", text)


def login(at: int) -> logins.ValidatorLogin:
    made = logins.ValidatorLogin(
        validator_hotkey=ALICE.ss58_address,
        miner_hotkey=BOB.ss58_address,
        timestamp=at,
        signature="",
    )
    return made.model_copy(update={"signature": written(ALICE.sign(made.text().encode()))})


def test_a_login_from_the_future_lets_nobody_in() -> None:
    at = (BOB.ss58_address, ALICE.ss58_address, 1000.0)
    assert logins.strict_login(login(1000), *at) == (True, "")
    assert logins.network_login(login(100_000), *at) == (True, "")
    assert logins.strict_login(login(100_000), *at) == (False, "msg from the future")


def test_a_signed_request_is_taken_once_and_now() -> None:
    payload = requests.http_payload("post", "https://h.example/api?x=1", {"a": 1})
    signature = requests.signed_request(
        ALICE.sign, ALICE.ss58_address, 1_000_000_000_000, payload, "FullRequest"
    )
    requests.verify(signature, payload)
    known: dict[str, Any] = {"callers": {ALICE.ss58_address}, "now": 1001.0, "seen": ()}

    def said(of: requests.RequestSignature = signature, **changes: Any) -> str:
        return requests.strict_problem(of, payload, **known | changes)

    assert said() == ""
    assert "taken before" in said(seen={signature.signature})
    assert "ago" in said(now=2000.0)
    assert "ago" in said(now=900.0)
    assert "may not" in said(callers=())
    assert "part" in said(replace(signature, signature_scope="SignedFields"))
    assert "not" in said(replace(signature, timestamp_ns=1_000_000_000_001))
    assert "ago" in said(replace(signature, timestamp_ns=-1))
    assert requests.signature_in(requests.headers_of(signature)) == signature


def test_the_whole_job_request_can_be_signed() -> None:
    request = requests.JobRequest(
        uuid=JOB,
        executor_class="always_on.test",
        docker_image="i",
        args=[],
        env={},
        download_time_limit=1,
        execution_time_limit=1,
        upload_time_limit=1,
        streaming_start_time_limit=1,
    )
    other = request.model_copy(update={"uuid": "another"})
    assert requests.network_signed_fields(request) == requests.network_signed_fields(other)
    assert requests.strict_signed_fields(request) != requests.strict_signed_fields(other)


def test_weights_that_share_nothing_out_are_left_out() -> None:
    text = "always_on.test=nan,always_on.gpu-24gb=-1,always_on.llm.a6000=2"
    assert len(network_weights(text)) == 3
    assert strict_weights(text) == {"always_on.llm.a6000": 2.0}
    assert len({one.letter for one in CLASSES.values()}) == len(CLASSES)


def test_workloads_take_one_prompt_of_each_series() -> None:
    series = {f"s{i}": [f"{i}-{j}" for j in range(3)] for i in range(7)} | {"short": ["only"]}
    made = llm_samples.workloads(series, random.Random(1), size=3)
    assert [len(one.samples) for one in made] == [3, 3]
    picked = [sample for one in made for sample in one.samples]
    assert len({sample.series for sample in picked}) == 6
    assert all(sample.prompt in series[sample.series] for sample in picked)
    assert made[0].seed != made[1].seed
    same = llm_samples.workloads(series, random.Random(1), size=3, seed=5)
    assert {one.seed for one in same} == {5}


def test_hash_jobs_too_large_or_broken_are_not_tried() -> None:
    for stage in (
        hash_jobs.Stage("00:00", "1410", 6, 0),
        hash_jobs.Stage("00:00", "9999", 1, 0),
        hash_jobs.Stage("no digest", "1410", 1, 0),
        hash_jobs.Stage("00" * 32 + ":00", "1410", 1, 0),
    ):
        with pytest.raises(hash_jobs.UnsolvableJob):
            hash_jobs.solve([stage])
    with pytest.raises(hash_jobs.UnsolvableJob, match="encrypted"):
        hash_jobs.solve([hash_jobs.Stage("xx", "1410", 1, 0)], "first")


def test_a_pair_that_cannot_be_read_leaves_the_one_before_it() -> None:
    text = "always_on.test=3,always_on.test=-1,always_on.test=x,always_on.cpu.8c.16gb=-2"
    assert network_limits(text) == {"always_on.test": 3}
    assert network_weights(text) == {"always_on.test": -1.0, "always_on.cpu.8c.16gb": -2.0}
