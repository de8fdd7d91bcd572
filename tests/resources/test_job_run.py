"""Whole jobs: over a node's line and over signed addresses, and what hostile uploads come to."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import S3Place
from tests.support.fleet import Machine
from tests.support.radosgw import KEY_ID, SECRET
from tests.support.small_s3 import small_s3
from windrow.engine.fleet import tasks
from windrow.engine.fleet.llm_job_answers import MAX_ANSWER_BYTES, pack_answers
from windrow.engine.fleet.llm_job_model import MODELS_FOLDER, LocalModel
from windrow.engine.fleet.llm_job_objects import BUCKET_ENDPOINT
from windrow.engine.fleet.llm_job_plan import Job
from windrow.engine.fleet.llm_job_requests import BadJob, Request, read_request
from windrow.resources.fleet.job_buckets import BrokenCommitment, JobBuckets, JobStarted
from windrow.resources.fleet.job_run import JobRun, precision, run_job
from windrow.resources.fleet.job_volumes import clear_stray
from windrow.resources.fleet.nodes import Answer, LocalNode, TaskFailed
from windrow.resources.fleet.trusted import TrustedNodeFailed
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import S3Bucket

DEMO = Path(__file__).parents[2] / "pipelines" / "demo" / "checkpoint"
JOB = Job(
    "7f4f14bd-bee7-497c-8b2b-992f4fc209ed",
    "n",
    "demo",
    "ab" * 32,
    prompts=3,
    max_tokens=4,
    limit_seconds=60.0,
)


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "demo").symlink_to(DEMO)
    monkeypatch.setenv(MODELS_FOLDER, str(tmp_path / "models"))


@pytest.fixture
def node() -> Iterator[LocalNode]:
    node = LocalNode("n")
    yield node
    node.close()


def test_a_job_in_folders_is_asked_checked_and_made_public(tmp_path: Path, node: LocalNode) -> None:
    buckets = JobBuckets(open_bucket(tmp_path / "prompts"), open_bucket(tmp_path / "answers"))
    run = run_job(buckets, JOB, node, node)
    assert run.verdict.passed
    assert (run.verdict.equal, run.upload) == (3, None)
    stored = buckets.stored(JOB.job_id)
    assert stored.job == JOB
    assert stored.verify(run.seconds) == run.verdict
    assert buckets.series(JOB.job_id) == JOB.texts()
    with pytest.raises(JobStarted):
        run_job(buckets, JOB, node, node)

    unknown = replace(JOB, job_id="ddbf1d11-a2dd-4fd4-a6bb-839d9f722425", model="other")
    with pytest.raises(TaskFailed, match="UnknownModel"):
        run_job(buckets, unknown, node, node)
    ended = buckets.stored(unknown.job_id)
    assert (ended.job, ended.answer) == (unknown, None)
    assert ended.verify(1.0) is None


@pytest.mark.parametrize("what", ["answer", "score"])
def test_what_the_trusted_node_babbles_is_not_the_nodes_fault(tmp_path: Path, what: str) -> None:
    def babble(request: bytes) -> bytes:
        return b"?" if json.loads(request)["do"] == what else tasks.answer("llm_job", request)

    def other(request: bytes) -> bytes:
        asked = read_request(request)
        if not isinstance(asked, Request):
            return tasks.answer("llm_job", request)
        answered, seconds = LocalModel(DEMO, "cpu").answer(replace(asked, seed="00" * 16))
        return pack_answers(asked, answered, seconds)

    buckets = JobBuckets(open_bucket(tmp_path / "prompts"), open_bucket(tmp_path / "answers"))
    with pytest.raises(TrustedNodeFailed, match="cannot be read"):
        run_job(buckets, JOB, Machine({"llm_job": other}), Machine({"llm_job": babble}))


class Timed(Machine):
    """A machine whose answers take the time they take."""

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        began = time.monotonic()
        answer = super().ask(task, request, timeout=timeout, max_bytes=max_bytes)
        return replace(answer, seconds=time.monotonic() - began)


class Shown:
    """A job in an S3 bucket whose node is shown addresses; `node` does as it is told."""

    def __init__(self, s3: S3Place) -> None:
        self.bucket: S3Bucket = s3.direct()
        self.buckets = JobBuckets(self.bucket, self.bucket)
        self.asked: list[bytes] = []

    def run(self, act: Callable[[bytes], bytes] | None = None, job: Job = JOB) -> JobRun:
        """act: the node's answer to the request with addresses; None is an honest one."""

        def do(request: bytes) -> bytes:
            if b"answer_volume" not in request:
                return tasks.answer("llm_job", request)
            self.asked.append(request)
            return (act or honest)(request)

        return run_job(self.buckets, job, Timed({"llm_job": do}), Timed())

    @property
    def put_url(self) -> str:
        return str(json.loads(self.asked[-1])["upload"]["url"])

    def there(self) -> list[str]:
        return [info.key for info in self.bucket.list()]


@pytest.fixture
def shown(s3: S3Place, monkeypatch: pytest.MonkeyPatch) -> Shown:
    monkeypatch.setenv(BUCKET_ENDPOINT, s3.url)
    return Shown(s3)


def honest(request: bytes) -> bytes:
    return tasks.answer("llm_job", request)


def put(url: str, data: bytes) -> int:
    request = urllib.request.Request(url, data, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def upload_reason(run: JobRun) -> str:
    """Why the upload is refused; the node has not passed then."""
    check = run.verdict.checks[0]
    assert (check.check, check.windrow_verdict, run.verdict.passed) == ("llm_upload", False, False)
    return check.reason


def test_a_node_fetches_its_prompts_and_puts_its_answer(
    shown: Shown, s3: S3Place, node: LocalNode
) -> None:
    run = run_job(shown.buckets, JOB, node, node)
    assert run.verdict.passed
    assert (run.verdict.equal, [check.check for check in run.verdict.checks]) == (
        3,
        ["llm_upload", "llm_answers", "llm_time"],
    )
    assert run.upload is not None
    assert run.upload.receipt is not None
    assert run.upload.receipt.seconds < run.seconds
    stored = shown.buckets.stored(JOB.job_id)
    assert stored.verify(run.seconds) == run.verdict
    # Of what the node was shown nothing is left.
    assert not [key for key in shown.there() if key.startswith(("volumes/", "uploads/"))]


def test_prompts_lie_in_the_bucket_only_while_the_node_works(shown: Shown) -> None:
    seen = []

    def act(request: bytes) -> bytes:
        seen.append(shown.there())
        assert all(prompt.encode() not in request for prompt in JOB.texts())
        assert JOB.secret.encode() not in request
        return honest(request)

    def load(request: bytes) -> bytes:
        if b"answer_volume" in request:
            return act(request)
        seen.append(shown.there())
        return tasks.answer("llm_job", request)

    run_job(shown.buckets, JOB, Timed({"llm_job": load}), Timed())
    before, meanwhile = seen
    assert before == [f"commitments/{JOB.job_id}.json"]
    assert [key.partition("/")[0] for key in meanwhile] == ["commitments", "volumes"]
    assert JOB.job_id not in meanwhile[1]


def test_addresses_are_kept_nowhere(shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    run = shown.run()
    found = re.findall(r"X-Amz-Signature=([0-9a-f]{64})", shown.asked[0].decode())
    assert len(found) == 2
    kept = repr(run) + repr(read_request(shown.asked[0])) + caplog.text
    kept += "".join(shown.bucket.get(key).decode(errors="replace") for key in shown.there())
    assert not [part for part in (*found, "X-Amz", "volumes/") if part in kept]


def test_an_upload_that_never_was_is_a_finding(shown: Shown) -> None:
    def act(request: bytes) -> bytes:
        receipt = honest(request)
        url = json.loads(request)["upload"]["url"]
        key = re.search(r"uploads/[0-9a-f]+\.frame", url)
        assert key is not None
        shown.bucket.delete(key[0])
        return receipt

    run = shown.run(act)
    assert "never put, or late" in upload_reason(run)
    assert run.verdict.checks[0].network_verdict is False
    assert shown.buckets.stored(JOB.job_id).verify(run.seconds) == run.verdict


@pytest.mark.parametrize("size", [MAX_ANSWER_BYTES + 1, 64 << 20])
def test_an_upload_that_is_too_large_is_not_read(shown: Shown, size: int) -> None:
    def act(request: bytes) -> bytes:
        receipt = json.loads(honest(request))
        assert put(shown.put_url, bytes(size)) == 200
        return json.dumps(receipt | {"size": size}).encode()

    run = shown.run(act)
    assert f"has {size} bytes, and was not read" in upload_reason(run)
    stored = shown.buckets.stored(JOB.job_id)
    assert (stored.answer, stored.verify(run.seconds)) == (None, run.verdict)
    assert not [key for key in shown.there() if key.startswith("uploads/")]


def test_an_upload_that_is_not_the_receipts_is_not_judged(shown: Shown) -> None:
    def act(request: bytes) -> bytes:
        receipt = honest(request)
        assert put(shown.put_url, b"something else") == 200
        return receipt

    run = shown.run(act)
    assert "not the one of its receipt" in upload_reason(run)
    assert [check.check for check in run.verdict.checks] == ["llm_upload", "llm_time"]
    stored = shown.buckets.stored(JOB.job_id)
    assert (stored.answer, stored.trusted) == (b"something else", None)
    assert stored.verify(run.seconds) == run.verdict


def test_an_upload_that_is_overwritten_after_it_was_read_is_a_finding(shown: Shown) -> None:
    def trusted(request: bytes) -> bytes:
        assert put(shown.put_url, b"what it thought better of") == 200
        return tasks.answer("llm_job", request)

    def do(request: bytes) -> bytes:
        shown.asked.append(request)
        return tasks.answer("llm_job", request)

    run = run_job(shown.buckets, JOB, Timed({"llm_job": do}), Timed({"llm_job": trusted}))
    assert "overwritten" in upload_reason(run)
    # What was read was right, and is judged and kept all the same.
    assert [check.windrow_verdict for check in run.verdict.checks] == [False, True, True]
    assert shown.buckets.stored(JOB.job_id).verify(run.seconds) == run.verdict


def test_an_address_ends_with_its_job(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windrow.resources.fleet.job_volumes.SLACK_SECONDS", 0.5)

    def act(request: bytes) -> bytes:
        asked = json.loads(request)
        time.sleep(3.5)
        assert put(asked["upload"]["url"], b"late") == 403
        return honest(request)

    with pytest.raises(TaskFailed, match=r"DownloadFailed.*answers 403"):
        shown.run(act, replace(JOB, limit_seconds=0.5))
    assert shown.buckets.stored(JOB.job_id).answer is None
    assert not [key for key in shown.there() if key.startswith(("volumes/", "uploads/"))]


def test_a_late_upload_is_a_finding(shown: Shown) -> None:
    run = shown.run(job=replace(JOB, limit_seconds=0.001))
    late = run.verdict.checks[-1]
    assert (late.check, late.windrow_verdict, run.verdict.passed) == ("llm_time", False, False)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (b"", "no receipt: no JSON"),
        (b"[]", "no receipt"),
        (b"{" * 4000, "no receipt"),
        ({"size": -1}, "no receipt"),
        ({"size": True}, "no receipt"),
        ({"sha256": "hello"}, "no receipt"),
        ({"work_seconds": "1"}, "no receipt"),
        ({"work_seconds": -1.0}, "no receipt"),
        ({"work_seconds": 1e300}, "no receipt"),
        ({"work_seconds": 1e6}, "it says it took"),
        ({"job": "ddbf1d11-a2dd-4fd4-a6bb-839d9f722425"}, "another job"),
        ({"more": 1}, "other fields"),
        ({"size": 1}, "not the one of its receipt"),
        ({"sha256": "00" * 32}, "not the one of its receipt"),
    ],
)
def test_receipts_are_read_with_care(
    told: bytes | dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(request: bytes) -> bytes:
        receipt = honest(request)
        return told if isinstance(told, bytes) else json.dumps(json.loads(receipt) | told).encode()

    with small_s3("jobs") as server:
        monkeypatch.setenv(BUCKET_ENDPOINT, server.url)
        access = S3Access(KEY_ID, Secret(SECRET), None, "us-east-1", server.url)
        bucket = S3Bucket("jobs", access)
        run = run_job(JobBuckets(bucket, bucket), JOB, Timed({"llm_job": act}), Timed())
        assert words in upload_reason(run)
        assert JobBuckets(bucket, bucket).stored(JOB.job_id).verify(run.seconds) == run.verdict


@pytest.mark.parametrize("where", ["receipt", "error", "reason"])
def test_a_node_that_tells_its_address_is_not_quoted(shown: Shown, where: str) -> None:
    def act(request: bytes) -> bytes:
        url = json.loads(request)["upload"]["url"]
        if where == "receipt":
            return json.dumps({url[-200:]: 1}).encode()
        words = ("UploadFailed", f"no answer at {url}") if where == "error" else (url[-100:], "")
        raise TaskFailed("n", "llm_job", *words)

    if where == "receipt":
        reason = upload_reason(shown.run(act))
    else:
        with pytest.raises(TaskFailed) as failure:
            shown.run(act)
        assert failure.value.reason == "AddressTold"
        assert failure.value.__context__ is None
        reason = str(failure.value)
    assert "tells an address" in reason
    signature = re.search(r"X-Amz-Signature=([0-9a-f]{64})", shown.put_url)
    assert signature is not None
    assert signature[1] not in reason


def test_a_kept_answer_that_was_changed_is_not_believed(shown: Shown) -> None:
    run = shown.run()
    shown.bucket.put(f"jobs/{JOB.job_id}/answer.frame", b"other")
    with pytest.raises(BrokenCommitment):
        shown.buckets.stored(JOB.job_id).verify(run.seconds)
    shown.bucket.put(f"jobs/{JOB.job_id}/upload.json", b'{"receipt": 7}')
    with pytest.raises(BadJob):
        shown.buckets.stored(JOB.job_id)


def test_what_killed_jobs_left_is_removed_in_time(shown: Shown) -> None:
    shown.bucket.put("uploads/left.frame", b"x")
    shown.buckets.sweep()
    assert shown.there() == ["uploads/left.frame"]
    clear_stray(shown.bucket, "uploads/", time.time() + 3 * 86_400)
    assert shown.there() == []


def low(request: bytes) -> bytes:
    """A node that computes in 16 bits, as one with a GPU does."""
    asked = read_request(request)
    if not isinstance(asked, Request):
        return tasks.answer("llm_job", request)
    model = LocalModel(DEMO, "cpu", dtype=torch.bfloat16)
    return pack_answers(asked, *model.answer(asked))


def test_a_job_allows_for_the_numbers_both_sides_compute_in(tmp_path: Path) -> None:
    bucket = open_bucket(tmp_path / "jobs")
    buckets = JobBuckets(bucket, bucket)
    # The demo's files are in bfloat16, so a GPU computes in that and a processor does not.
    assert precision(Timed(), "demo", gpus=False) == 32
    bits = precision(Timed(), "demo", gpus=True)
    assert bits == 16

    job = replace(JOB, prompts=6, max_tokens=32, bits=bits)
    run = run_job(buckets, job, Timed({"llm_job": low}), Timed())
    assert run.verdict.passed
    assert run.verdict.equal != 6
    assert buckets.stored(job.job_id).verify(run.seconds) == run.verdict

    exact = replace(job, job_id="ddbf1d11-a2dd-4fd4-a6bb-839d9f722425", bits=32)
    assert not run_job(buckets, exact, Timed({"llm_job": low}), Timed()).verdict.passed
    assert exact.commitment() != replace(exact, bits=16).commitment()
