"""A bucket on an S3 server: nothing stored twice, nothing taken for stored that is not."""

import contextlib
import hashlib
import itertools
import os
import pickle
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
from botocore.exceptions import ClientError

from tests.conftest import S3Place
from tests.support.flaky_proxy import Fault, Kind
from tests.support.radosgw import KEY_ID, SECRET, make_bucket
from tests.support.small_s3 import small_s3
from windrow.resources.secret import Secret
from windrow.resources.storage import multipart
from windrow.resources.storage.expiry import expire_windows
from windrow.resources.storage.object_store import (
    BucketMissing,
    BucketRefused,
    BucketUnavailable,
    NotStoredInTime,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    ObjectStoreError,
    ObjectTooLarge,
    open_bucket,
)
from windrow.resources.storage.patience import LONGEST_WAIT_SECONDS, Patience
from windrow.resources.storage.rights import Rights, WrongRights, check_key_pair, probe_rights
from windrow.resources.storage.s3_access import S3Access, S3AccessMissing
from windrow.resources.storage.s3_bucket import S3Bucket

KEY = "grail/windows/5Grw-window-60.parquet"
PART = 5 * 1024 * 1024
SOME_KINDS = ["busy", "reset", "stored_then_reset", "stored_then_busy"]


def test_what_is_put_is_got(s3: S3Place, tmp_path: Path) -> None:
    bucket = s3.open()
    info = bucket.put(KEY, b"rows")
    assert (info.key, info.size) == (KEY, 4)
    assert bucket.head(KEY) == info
    assert bucket.get(KEY, max_bytes=4) == b"rows"
    (tmp_path / "up").write_bytes(b"from a file")
    assert bucket.put_file(KEY, tmp_path / "up").etag != info.etag
    assert bucket.get_to_file(KEY, tmp_path / "down").size == 11
    assert (tmp_path / "down").read_bytes() == b"from a file"
    with pytest.raises(ObjectTooLarge):
        bucket.get(KEY, max_bytes=10)
    (tmp_path / "empty").touch()
    assert bucket.put_file("empty", tmp_path / "empty", create=True).size == 0
    assert bucket.get_to_file("empty", tmp_path / "none").size == 0
    bucket.delete(KEY)
    bucket.delete(KEY)
    assert bucket.head(KEY) is None
    with pytest.raises(ObjectMissing):
        bucket.get(KEY)


def test_a_prefix_is_a_bucket_of_its_own(s3: S3Place) -> None:
    whole = s3.open()
    part = open_bucket(f"s3://{s3.bucket}/some/where", s3.access())
    part.put("a/b", b"x", create=True)
    whole.put("a/b", b"y")
    assert [info.key for info in part.list()] == ["a/b"]
    assert [info.key for info in whole.list()] == ["a/b", "some/where/a/b"]
    assert part.get("a/b") == b"x"


def test_a_race_to_create_has_one_winner(s3: S3Place) -> None:
    bucket = s3.open()

    def attempt(number: int) -> bool:
        try:
            bucket.put(KEY, b"%d" % number, create=True)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(16)))
    assert won.count(True) == 1
    assert bucket.get(KEY) == b"%d" % won.index(True)


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("kind", SOME_KINDS)
def test_a_failing_put_stores_once(s3: S3Place, kind: str, create: bool) -> None:
    s3.proxy.faults = [Fault(kind, "PUT")]
    info = s3.open().put(KEY, b"rows", create=create)
    assert s3.direct().head(KEY) == info
    assert s3.direct().get(KEY) == b"rows"
    sent = 1 if kind.startswith("stored") else 2
    assert s3.proxy.count("PUT") == sent, s3.proxy.seen


@pytest.mark.parametrize("kind", ["stored_then_reset", "reset"])
def test_the_bucket_is_asked_until_it_answers(s3: S3Place, kind: str) -> None:
    s3.proxy.faults = [Fault(kind, "PUT"), Fault("busy", "HEAD", times=2)]
    s3.open().put(KEY, b"rows", create=True)
    assert s3.direct().get(KEY) == b"rows"
    assert s3.proxy.count("PUT") == (1 if kind.startswith("stored") else 2)


def test_an_object_of_somebody_else_is_not_taken_for_ours(s3: S3Place) -> None:
    s3.direct().put(KEY, b"rows of another")
    s3.proxy.faults = [Fault("reset", "PUT")]
    with pytest.raises(ObjectExists):
        s3.open().put(KEY, b"rows", create=True)
    assert s3.direct().get(KEY) == b"rows of another"


def test_a_put_that_cannot_end_in_time_is_not_begun_again(s3: S3Place) -> None:
    bucket = s3.open()
    bucket._rate = 1.0
    s3.proxy.faults = [Fault("busy", "PUT")]
    with pytest.raises(NotStoredInTime, match=r"was not stored.*503"):
        bucket.put(KEY, b"rows" * 30, create=True, within=60.0)
    assert s3.proxy.count("PUT") == 1
    assert s3.direct().head(KEY) is None


def test_time_ends_while_the_server_is_silent(s3: S3Place) -> None:
    s3.proxy.faults = [Fault("silent", "PUT", times=9)]
    with pytest.raises(NotStoredInTime, match="was not stored"):
        s3.open().put(KEY, b"rows", create=True, within=1.0)
    assert s3.direct().head(KEY) is None


def test_what_was_stored_as_time_ended_counts(s3: S3Place) -> None:
    s3.proxy.faults = [Fault("stored_then_reset", "PUT")]
    assert s3.open().put(KEY, b"rows", create=True, within=0.05).size == 4
    assert s3.proxy.count("PUT") == 1


@pytest.mark.parametrize("kind", ["busy", "reset", "cut"])
def test_reads_are_repeated(s3: S3Place, tmp_path: Path, kind: str) -> None:
    data = os.urandom(300_000)
    bucket = s3.open()
    bucket.put("a/b", data)
    s3.proxy.faults = [Fault(kind, "GET", times=2)]
    assert bucket.get("a/b") == data
    s3.proxy.faults = [Fault(kind, "GET")]
    assert bucket.get_to_file("a/b", tmp_path / "down").size == len(data)
    assert (tmp_path / "down").read_bytes() == data
    s3.proxy.faults = [Fault("busy", "HEAD")]
    assert bucket.head("a/b") is not None
    s3.proxy.faults = [Fault("busy", "GET", "list-type")]
    assert [info.key for info in bucket.list("a/")] == ["a/b"]
    s3.proxy.faults = [Fault("busy", "DELETE")]
    bucket.delete("a/b")
    assert bucket.list() == []


def test_a_server_that_stays_away_is_named(s3: S3Place) -> None:
    bucket = s3.open(read_seconds=0.3)
    s3.proxy.faults = [Fault("busy", times=99)]
    with pytest.raises(BucketUnavailable, match="503"):
        bucket.get(KEY)
    with pytest.raises(BucketUnavailable):
        bucket.list()
    with pytest.raises(BucketUnavailable):
        bucket.head(KEY)


def test_a_download_goes_on_where_it_stopped(s3: S3Place, tmp_path: Path) -> None:
    data = os.urandom(6_000_000)
    s3.direct().put("weights", data)
    bucket = s3.open(read_seconds=0.2)
    s3.proxy.faults = [Fault("cut", "GET"), Fault("busy", "GET", times=99)]
    with pytest.raises(BucketUnavailable):
        bucket.get_to_file("weights", tmp_path / "w", resume=True)
    (part,) = tmp_path.iterdir()
    kept = part.stat().st_size
    assert 0 < kept < len(data)
    assert part.read_bytes() == data[:kept]
    s3.proxy.faults = []
    bucket.get_to_file("weights", tmp_path / "w", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").read_bytes() == data


def test_a_download_of_another_object_starts_over(s3: S3Place, tmp_path: Path) -> None:
    s3.direct().put("weights", os.urandom(3_000_000))
    bucket = s3.open(read_seconds=0.2)
    s3.proxy.faults = [Fault("cut", "GET"), Fault("busy", "GET", times=99)]
    with pytest.raises(BucketUnavailable):
        bucket.get_to_file("weights", tmp_path / "w", resume=True)
    newer = os.urandom(3_000_000)
    s3.direct().put("weights", newer)
    s3.proxy.faults = []
    bucket.get_to_file("weights", tmp_path / "w", resume=True)
    assert (tmp_path / "w").read_bytes() == newer


def test_an_object_replaced_under_a_download_is_named(s3: S3Place, tmp_path: Path) -> None:
    s3.direct().put("weights", os.urandom(3_000_000))

    class Replaced(S3Bucket):
        def _known(self, key: str) -> object:
            info = super()._known(key)
            s3.direct().put(key, b"newer")
            return info

    with pytest.raises(ObjectChanged):
        Replaced(s3.bucket, s3.access()).get_to_file("weights", tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [None, "stored_then_reset", "busy"])
def test_large_objects_travel_in_parts(s3: S3Place, tmp_path: Path, kind: str | None) -> None:
    data = os.urandom(11_000_000)
    (tmp_path / "up").write_bytes(data)
    bucket = s3.open(part_bytes=5 * 1024 * 1024)
    if kind == "busy":
        s3.proxy.faults = [Fault(kind, "PUT", "partNumber=2")]
    elif kind is not None:
        s3.proxy.faults = [Fault(kind, "POST", "uploadId=")]
    bucket.put_file(KEY, tmp_path / "up", create=True)
    assert hashlib.sha256(s3.direct().get(KEY)).digest() == hashlib.sha256(data).digest()
    assert s3.proxy.count("PUT", "partNumber=3") == 1
    assert s3.proxy.count("POST", "?uploads") == 1
    with pytest.raises(ObjectExists):
        bucket.put_file(KEY, tmp_path / "up", create=True)
    assert s3.proxy.count("POST", "?uploads") == 1


def overtaken(ours: S3Bucket, theirs: S3Bucket, data: bytes) -> str:
    """Create an object in parts while another machine does; how that ends, "" if it is stored."""

    class Slower(S3Bucket):
        def _create_in_parts(self, *arguments: Any) -> None:
            theirs.put(KEY, data[::-1], create=True)
            super()._create_in_parts(*arguments)

    slower = Slower(ours.bucket, ours.access, part_bytes=PART)
    try:
        slower.put(KEY, data, create=True)
    except ObjectExists as error:
        return str(error)
    return ""


def test_an_object_in_parts_never_replaces_one_that_was_faster(s3: S3Place) -> None:
    data = os.urandom(2 * PART)
    theirs = s3.direct()
    assert "already there" in overtaken(s3.open(), theirs, data)
    assert theirs.get(KEY) == data[::-1]
    # What was sent of it is gone: nobody pays for it.
    assert s3.proxy.count("DELETE", "uploadId=") == 1
    assert s3.proxy.count("POST", "uploadId=") == 0


def stored_last(bucket: S3Bucket, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `overtaken`, by a machine that is faster by less than the bucket can be asked in."""
    asked = multipart._check_absent

    def ask(client: Any, place: Mapping[str, str]) -> None:
        asked(client, place)
        bucket.put(KEY, data[::-1], create=True)

    monkeypatch.setattr(multipart, "_check_absent", ask)
    S3Bucket(bucket.bucket, bucket.access, part_bytes=PART).put(KEY, data, create=True)


def test_a_server_with_the_condition_has_one_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(2 * PART)
    with small_s3("bucket") as server:
        bucket = S3Bucket("bucket", S3Access(KEY_ID, Secret(SECRET), None, "auto", server.url))
        with pytest.raises(ObjectExists, match=r"PreconditionFailed"):
            stored_last(bucket, data, monkeypatch)
        assert bucket.get(KEY) == data[::-1]
        assert server.uploads == {}


@pytest.mark.parametrize("conditions", ["ignored", "unknown"])
def test_a_server_without_the_condition_is_asked_and_has_whole_objects(
    monkeypatch: pytest.MonkeyPatch, conditions: Literal["ignored", "unknown"]
) -> None:
    data = os.urandom(2 * PART)
    with small_s3("bucket") as server:
        server.conditions = conditions
        bucket = S3Bucket("bucket", S3Access(KEY_ID, Secret(SECRET), None, "auto", server.url))
        assert "already there" in overtaken(bucket, bucket, data)
        bucket.delete(KEY)
        # One that says so is asked once more, with no other process of this machine in between.
        known = conditions == "ignored"
        with contextlib.nullcontext() if known else pytest.raises(ObjectExists):
            stored_last(bucket, data, monkeypatch)
        assert bucket.get(KEY) == (data if known else data[::-1])


@pytest.mark.live
def test_the_condition_counts_as_far_as_the_server_has_it(
    radosgw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, data = make_bucket("conditions", radosgw), os.urandom(2 * PART)
    client.put_object(Bucket="conditions", Key="known", Body=b"x")
    place = {"Bucket": "conditions", "Key": "known"}
    upload = client.create_multipart_upload(**place)["UploadId"]
    part = client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"y")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    held = False
    try:
        client.complete_multipart_upload(
            **place, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*"
        )
    except ClientError:
        held = True
    bucket = S3Bucket("conditions", S3Access(KEY_ID, Secret(SECRET), None, "us-east-1", radosgw))
    with pytest.raises(ObjectExists) if held else contextlib.nullcontext():
        stored_last(bucket, data, monkeypatch)
    assert bucket.get(KEY) == (data[::-1] if held else data)


def test_parts_that_take_too_long_are_not_put_together(s3: S3Place) -> None:
    s3.proxy.faults = [Fault("silent", "PUT", "partNumber=2")]
    bucket = s3.open(part_bytes=PART)
    with pytest.raises(NotStoredInTime, match="was not stored"):
        bucket.put(KEY, os.urandom(2 * PART), create=True, within=1.0)
    assert s3.proxy.count("POST", "uploadId=") == 0
    assert s3.direct().head(KEY) is None


@pytest.mark.parametrize(
    ("kind", "method", "part", "named"),
    [
        ("refused", "POST", "?uploads", BucketRefused),
        ("refused", "PUT", "partNumber=2", BucketRefused),
        ("refused", "POST", "uploadId=", BucketRefused),
        ("busy", "PUT", "partNumber=1", NotStoredInTime),
    ],
)
def test_what_a_part_meets_is_named_and_nothing_is_left(
    s3: S3Place, kind: Kind, method: str, part: str, named: type[ObjectStoreError]
) -> None:
    s3.proxy.faults = [Fault(kind, method, part, times=99)]
    with pytest.raises(named) as raised:
        s3.open(part_bytes=PART).put(KEY, os.urandom(2 * PART), create=True, within=2.0)
    shown = "".join(traceback.format_exception(raised.value))
    assert KEY in shown
    assert SECRET not in shown
    assert s3.access().key_id not in shown
    begun = s3.proxy.count("POST", "?uploads") - (part == "?uploads")
    assert s3.proxy.count("DELETE", "uploadId=") == begun
    assert s3.direct().head(KEY) is None


def test_a_key_that_is_refused_is_no_reason_to_repeat(s3: S3Place) -> None:
    s3.proxy.faults = [Fault("refused", times=99)]
    bucket = s3.open()
    for use in (
        lambda: bucket.put(KEY, b"x"),
        lambda: bucket.get(KEY),
        lambda: bucket.head(KEY),
        lambda: bucket.list("a/"),
        lambda: bucket.delete(KEY),
    ):
        with pytest.raises(BucketRefused):
            use()
    # A HEAD has no body, so one GET finds out what the refusal is.
    assert [verb for verb, _ in s3.proxy.seen] == ["PUT", "GET", "HEAD", "GET", "GET", "DELETE"]


def test_a_bucket_that_is_not_there_is_named(s3: S3Place) -> None:
    absent = S3Bucket("no-such-bucket", s3.access())
    with pytest.raises(BucketMissing):
        absent.put(KEY, b"x")
    with pytest.raises(BucketMissing):
        absent.list()
    with pytest.raises(BucketMissing):
        absent.get(KEY)


def test_rights_are_found_out_and_nothing_is_left(s3: S3Place) -> None:
    s3.direct().put("kept", b"x")
    writer, reader = s3.open(), s3.open(read_only=True)
    assert probe_rights(writer) == Rights(lists=True, reads=True, writes=True, deletes=True)
    found = probe_rights(reader, "kept")
    assert found == Rights(lists=True, reads=True, writes=False, deletes=None)
    check_key_pair(writer, reader)
    with pytest.raises(WrongRights, match="read key can write"):
        check_key_pair(writer, s3.open())
    with pytest.raises(WrongRights, match="write key may not write"):
        check_key_pair(reader, reader)
    other = S3Access("unknown", Secret("unknown"), None, "us-east-1", s3.proxy.url)
    with pytest.raises(WrongRights, match="read key cannot read"):
        check_key_pair(writer, S3Bucket(s3.bucket, other))
    assert [info.key for info in s3.direct().list()] == ["kept"]


def test_a_silent_bucket_has_no_rights_to_tell(s3: S3Place) -> None:
    s3.proxy.faults = [Fault("busy", times=999)]
    with pytest.raises((BucketUnavailable, NotStoredInTime)):
        check_key_pair(s3.open(read_seconds=0.1), s3.open(read_only=True), seconds=0.5)


def test_old_windows_of_one_hotkey_are_cleared(s3: S3Place) -> None:
    bucket = s3.open()
    mine = [f"grail/windows/5Grw-window-{window}.parquet" for window in (0, 30, 60)]
    others = ["grail/windows/5Grwx-window-0.parquet", "grail/windows/5Grw-window-0.txt", "a"]
    for key in (*mine, f"{mine[0]}.gz", *others):
        bucket.put(key, b"x")
    assert expire_windows(bucket, "5Grw", 60) == [mine[0], f"{mine[0]}.gz", mine[1]]
    assert {info.key for info in bucket.list()} == {mine[2], *others}


def test_no_credential_is_shown(s3: S3Place) -> None:
    bucket = s3.open(read_seconds=0.1)
    access = s3.access()
    shown = [repr(bucket), str(bucket), repr(access), f"{access}"]
    s3.proxy.faults = [Fault("refused"), Fault("busy", times=99)]
    for _ in range(3):
        with pytest.raises(ObjectStoreError) as raised:
            bucket.get("a/b")
        shown.append("".join(traceback.format_exception(raised.value, chain=False)))
    assert not any(SECRET in text or access.key_id in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(access)


def test_r2_is_reached_by_its_account() -> None:
    access = S3Access.r2("an-account", " key ", Secret(" secret "))
    assert (access.endpoint, access.region) == (
        "https://an-account.r2.cloudflarestorage.com",
        "auto",
    )
    assert (access.key_id, access.secret.reveal()) == ("key", "secret")
    assert access.endpoint_of("an-account") == access.endpoint
    hosted = S3Access.r2("a", "k", Secret("s"), endpoint="http://h:1/", path_style=False)
    assert hosted.endpoint_of("bucket") == "http://bucket.h:1"
    assert S3Bucket("bucket", hosted).name == "s3://bucket"


@pytest.mark.parametrize(
    "given", [("", "k", "s"), ("a", " ", "s"), ("a", "k", ""), ("a/b", "k", "s")]
)
def test_an_incomplete_r2_account_is_refused(given: tuple[str, str, str]) -> None:
    from windrow import WindrowError

    with pytest.raises(WindrowError):
        S3Access.r2(given[0], given[1], Secret(given[2]))


@pytest.mark.parametrize("url", ["s3://", "s3://B", "s3://a_b", "s3://bucket/../x"])
def test_what_is_no_bucket_is_refused(url: str, s3_access: S3Access) -> None:
    with pytest.raises((ObjectStoreError, S3AccessMissing)):
        open_bucket(url, s3_access).head("a")


@pytest.fixture
def s3_access() -> S3Access:
    return S3Access("k", Secret("s"), None, "us-east-1", "http://127.0.0.1:9")


def test_patience_waits_longer_each_time_and_ends() -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    patience = Patience(60.0, clock=lambda: now[0], sleep=sleep)
    while patience.wait(needed=5.0):
        pass
    assert now[0] <= 55.0
    assert max(waits) <= 1.5 * LONGEST_WAIT_SECONDS
    assert waits[0] <= 0.3
    assert all(later > earlier / 3 for earlier, later in itertools.pairwise(waits))
    assert not patience.wait(needed=60.0 - now[0])
