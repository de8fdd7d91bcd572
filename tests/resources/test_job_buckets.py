"""Jobs in two buckets: committed to, revealed, judged again."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.radosgw import KEY_ID, SECRET
from tests.support.small_s3 import small_s3
from windrow.engine.fleet.frames import BadFrame, to_json
from windrow.engine.fleet.llm_job_plan import Job
from windrow.engine.fleet.llm_job_requests import BadJob
from windrow.resources.fleet.job_buckets import (
    BrokenCommitment,
    DamagedObject,
    JobBuckets,
    JobStarted,
    StoredJob,
)
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import Bucket, InvalidKey, ObjectMissing, open_bucket
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import s3_bucket

JOB = Job(
    "7f4f14bd-bee7-497c-8b2b-992f4fc209ed",
    "node-1",
    "demo",
    "ab" * 32,
    prompts=3,
    max_tokens=4,
    limit_seconds=60.0,
)


@pytest.fixture
def prompts(tmp_path: Path) -> Bucket:
    return open_bucket(tmp_path / "prompts")


@pytest.fixture
def answers(tmp_path: Path) -> Bucket:
    return open_bucket(tmp_path / "answers")


@pytest.fixture
def buckets(prompts: Bucket, answers: Bucket) -> JobBuckets:
    return JobBuckets(prompts, answers)


def test_nothing_of_a_job_is_public_before_its_end(buckets: JobBuckets, prompts: Bucket) -> None:
    buckets.commit(JOB)
    (only,) = prompts.list()
    text = prompts.get(only.key).decode()
    assert JOB.commitment() in text
    assert JOB.secret not in text
    assert all(prompt not in text for prompt in JOB.texts())


def test_a_job_that_was_changed_afterwards_is_not_believed(
    buckets: JobBuckets, prompts: Bucket
) -> None:
    buckets.commit(JOB)
    buckets.reveal(StoredJob(JOB))
    other = replace(JOB, secret="cd" * 32)
    prompts.put(f"jobs/{JOB.job_id}.json", other.to_json())
    with pytest.raises(BrokenCommitment):
        buckets.stored(JOB.job_id)


def test_both_buckets_may_be_on_s3() -> None:
    with small_s3("prompts", "answers") as server:
        access = S3Access(KEY_ID, Secret(SECRET), None, "us-east-1", server.url)
        buckets = JobBuckets(s3_bucket("prompts", access), s3_bucket("answers", access))
        buckets.commit(JOB)
        with pytest.raises(JobStarted):
            buckets.commit(JOB)
        buckets.reveal(StoredJob(JOB, b"what a node says"))
        stored = buckets.stored(JOB.job_id)
        assert (stored.job, stored.answer, stored.trusted) == (JOB, b"what a node says", None)
        verdict = stored.verify(1.0)
        assert verdict is not None
        assert not verdict.passed
        assert buckets.series_names() == [JOB.job_id]


def test_series_and_answers_are_kept_as_the_network_has_them(
    buckets: JobBuckets, prompts: Bucket, answers: Bucket
) -> None:
    buckets.put_series("series-1", ["one?", "two?"])
    assert prompts.get("series/series-1.txt") == b"one?\ntwo?"
    assert buckets.series_names() == ["series-1"]
    buckets.put_solved("work-1", {"one?": "ä", "two?": ""})
    assert buckets.solved("work-1") == {"one?": "ä", "two?": ""}
    assert answers.get("solved/work-1.json") == to_json({"one?": "ä", "two?": ""})


def test_what_others_wrote_is_read_with_care(
    buckets: JobBuckets, prompts: Bucket, answers: Bucket
) -> None:
    for data in (b"", b"\xff", b"one\n\ntwo", b"\n".join([b"x"] * 241)):
        prompts.put("series/bad.txt", data)
        with pytest.raises(DamagedObject):
            buckets.series("bad")
    for data in (b"[]", b"{", b'{"a": 1, "a": 2}'):
        answers.put("solved/bad.json", data)
        with pytest.raises(BadFrame):
            buckets.solved("bad")
    answers.put("solved/bad.json", b'{"a": 1}')
    with pytest.raises(DamagedObject):
        buckets.solved("bad")
    with pytest.raises(BadJob, match="line"):
        buckets.put_series("bad", ["one\ntwo"])
    with pytest.raises(InvalidKey):
        buckets.series("../jobs")
    with pytest.raises(ObjectMissing):
        buckets.series("none")
