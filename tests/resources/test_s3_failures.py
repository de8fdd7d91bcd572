"""Every answer of an S3 server has a name and a remedy; only what can pass is repeated."""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Literal

import pytest
from dagster_aws.s3 import S3Resource

from tests.conftest import S3Place
from tests.support.flaky_proxy import Fault
from tests.support.radosgw import KEY_ID, SECRET
from tests.support.small_s3 import SmallS3, small_s3
from windrow.engine.fleet.llm_job_objects import DownloadFailed, UploadFailed, fetch, put
from windrow.resources.files import PathRefused
from windrow.resources.secret import Secret
from windrow.resources.storage.creation_lock import CreationLockTaken, creation_lock
from windrow.resources.storage.expiry import clear_unfinished
from windrow.resources.storage.object_store import (
    BucketFull,
    BucketMissing,
    BucketRefused,
    BucketUnavailable,
    ClockSkewed,
    NotStoredInTime,
    NotSupported,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    ObjectStoreError,
    ObjectTooLarge,
    RequestInvalid,
)
from windrow.resources.storage.rights import check_key_pair, probe_condition
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import S3Bucket
from windrow.resources.warehouse.bucket import BucketLake
from windrow.resources.warehouse.files import LakeError

KEY = "grail/windows/5Grw-window-60.parquet"
PART = 5 * 1024 * 1024
HOUR = 3600.0

Conditions = Literal["held", "ignored", "unknown", "invalid"]


def answered(status: int, code: str, more: str = "", **where: object) -> Fault:
    """An answer as servers send it: XML over two lines."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>{more}</Error>'
    return Fault("answer", times=99, status=status, body=text.encode() if code else b"", **where)  # type: ignore[arg-type]


def uses(bucket: S3Bucket) -> list[Callable[[], object]]:
    return [
        lambda: bucket.put(KEY, b"x", within=2.0),
        lambda: bucket.put(KEY, b"x", create=True, within=2.0),
        lambda: bucket.get(KEY),
        lambda: bucket.head(KEY),
        lambda: bucket.list("a/"),
        lambda: bucket.delete(KEY),
    ]


@pytest.mark.parametrize(
    ("status", "code", "named", "said"),
    [
        (400, "ExpiredToken", BucketRefused, "AWS_SESSION_TOKEN has expired"),
        (400, "AuthorizationHeaderMalformed", RequestInvalid, "AWS_REGION"),
        (400, "MalformedXML", RequestInvalid, "S3 API"),
        (301, "PermanentRedirect", RequestInvalid, "AWS_REGION"),
        (403, "AllAccessDisabled", BucketRefused, "permissions"),
        (403, "SignatureDoesNotMatch", BucketRefused, "secret"),
        (403, "QuotaExceeded", BucketFull, "quota"),
        (405, "MethodNotAllowed", NotSupported, "web site"),
        (413, "EntityTooLarge", ObjectTooLarge, "largest object size"),
        (507, "XMinioStorageFull", BucketFull, "Free space"),
    ],
)
def test_what_lasts_is_named_and_not_repeated(
    s3: S3Place, status: int, code: str, named: type[ObjectStoreError], said: str
) -> None:
    s3.proxy.faults = [answered(status, code)]
    for use in uses(s3.open()):
        s3.proxy.seen.clear()
        with pytest.raises(named, match=said) as raised:
            use()
        assert "Cannot " in str(raised.value)
        assert "s3://" in str(raised.value)
        assert len(s3.proxy.seen) <= 3, s3.proxy.seen
        assert KEY_ID not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "RequestTimeout"),
        (400, "IncompleteBody"),
        (400, "BadDigest"),
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
        (409, ""),
        (429, ""),
        (500, "InternalError"),
        (503, "SlowDown"),
        (522, ""),
    ],
)
def test_what_passes_is_repeated_and_nothing_is_stored_twice(
    s3: S3Place, status: int, code: str
) -> None:
    bucket = s3.open()
    for create in (False, True):
        fault = answered(status, code, method="PUT")
        fault.times = 1
        s3.proxy.faults = [fault]
        s3.proxy.seen.clear()
        bucket.put(f"{KEY}.{create}", b"rows", create=create)
        assert s3.proxy.count("PUT") == 2
        assert bucket.get(f"{KEY}.{create}") == b"rows"
    fault = answered(status, code, method="GET")
    fault.times = 2
    s3.proxy.faults = [fault]
    assert bucket.get(f"{KEY}.True") == b"rows"


def test_a_conflict_with_another_machine_ends_as_exists(s3: S3Place) -> None:
    class Overtaken(S3Bucket):
        def _send_whole(self, key: str, *arguments: object, **options: object) -> None:
            s3.direct().put(key, b"theirs")
            super()._send_whole(key, *arguments, **options)  # type: ignore[arg-type]

    s3.proxy.faults = [answered(409, "ConditionalRequestConflict", method="PUT")]
    with pytest.raises(ObjectExists):
        Overtaken(s3.bucket, s3.access()).put(KEY, b"ours", create=True)
    assert s3.proxy.count("PUT") == 1
    assert s3.direct().get(KEY) == b"theirs"


def test_a_conflict_that_lasts_ends_in_time(s3: S3Place) -> None:
    s3.proxy.faults = [answered(409, "ConditionalRequestConflict", method="PUT")]
    with pytest.raises(NotStoredInTime, match=r"was not stored.*ConditionalRequestConflict"):
        s3.open().put(KEY, b"rows", create=True, within=1.0)


@pytest.mark.parametrize("ahead", [HOUR, -2 * HOUR])
@pytest.mark.parametrize("tells", ["body", "header", "nothing but the header"])
def test_a_clock_that_is_off_is_named_with_by_how_much(
    s3: S3Place, ahead: float, tells: str
) -> None:
    server = time.time() - ahead
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(server))
    headers = (("Date", formatdate(server if tells != "body" else None, usegmt=True)),)
    more = f"<ServerTime>{text}</ServerTime>" if tells == "body" else ""
    code = "" if tells.startswith("nothing") else "RequestTimeTooSkewed"
    fault = answered(403, code, more, headers=headers)
    s3.proxy.faults = [fault]
    side = "ahead of" if ahead > 0 else "behind"
    for use in uses(s3.open()):
        s3.proxy.seen.clear()
        with pytest.raises(ClockSkewed, match=rf"clock is [\d,]+ s {side}.*timesyncd") as raised:
            use()
        seconds = float(
            str(raised.value).partition("clock is ")[2].split(" s ")[0].replace(",", "")
        )
        assert abs(seconds - abs(ahead)) < 5
        assert s3.proxy.count("PUT") <= 1
    with pytest.raises(ClockSkewed):
        check_key_pair(s3.open(), s3.open(read_only=True))
    with pytest.raises(LakeError, match="clock"):
        BucketLake(f"s3://{s3.bucket}/lake", s3.access()).query("SELECT * FROM faults")


def test_a_page_of_a_proxy_is_not_taken_for_the_bucket(s3: S3Place) -> None:
    page = b"<html>\n<title>Blocked</title>\n" + b"x" * 100_000
    s3.proxy.faults = [Fault("answer", times=99, status=403, body=page)]
    with pytest.raises(BucketRefused, match="proxy") as raised:
        s3.open().get(KEY)
    assert len(str(raised.value)) < 500
    s3.proxy.faults = [Fault("answer", times=1, status=502, body=page)]
    s3.direct().put(KEY, b"rows")
    assert s3.open().get(KEY) == b"rows"


def test_a_missing_bucket_is_not_a_missing_object(s3: S3Place, tmp_path: Path) -> None:
    absent = S3Bucket("no-such-bucket", s3.access())
    with pytest.raises(BucketMissing):
        absent.get_to_file(KEY, tmp_path / "x")
    with pytest.raises(ObjectMissing):
        s3.open().get_to_file(KEY, tmp_path / "x")


def test_an_object_that_became_shorter_is_named(s3: S3Place) -> None:
    s3.direct().put(KEY, b"rows")
    s3.proxy.faults = [answered(416, "InvalidRange", method="GET")]
    with pytest.raises(ObjectChanged, match="Read the object again"):
        s3.open().get(KEY)


# Conditional creation


def opened(server: SmallS3) -> S3Bucket:
    return S3Bucket("bucket", S3Access(KEY_ID, Secret(SECRET), None, "auto", server.url))


@pytest.mark.parametrize("size", [4, 2 * PART])
@pytest.mark.parametrize("conditions", ["held", "ignored", "unknown", "invalid"])
def test_the_promise_holds_on_every_server(
    conditions: Conditions, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with small_s3("bucket") as server:
        server.conditions = conditions

        def attempt(number: int) -> bool:
            data = bytes([number]) * size
            bucket = S3Bucket("bucket", opened(server).access, part_bytes=PART)
            try:
                bucket.put(KEY, data, create=True)
            except ObjectExists:
                return False
            return True

        if conditions in ("held", "unknown", "invalid"):
            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(attempt, range(4))).count(True) == 1
        else:
            assert [attempt(number) for number in range(3)] == [True, False, False]
        stored = opened(server).get(KEY)
        assert stored == stored[:1] * size
        assert not attempt(9)
        assert opened(server).get(KEY) == stored
        assert server.uploads == {}
    silent = conditions in ("held", "ignored")
    assert bool(caplog.records) != silent
    assert all("If-None-Match" in record.getMessage() for record in caplog.records)


def test_it_is_said_once_that_a_server_has_no_condition(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with small_s3("bucket") as server:
        server.conditions = "unknown"
        bucket = opened(server)
        assert bucket.conditions
        for number in range(3):
            bucket.put(f"{KEY}.{number}", b"x", create=True)
        assert not bucket.conditions
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("conditions", "found"),
    [("held", "kept"), ("ignored", "ignored"), ("unknown", "unknown"), ("invalid", "unknown")],
)
def test_the_condition_of_a_server_is_found_out(conditions: Conditions, found: str) -> None:
    with small_s3("bucket") as server:
        server.conditions = conditions
        assert probe_condition(opened(server)) == found
        assert server.buckets["bucket"] == {}


def test_a_put_that_is_refused_whatever_its_condition_is_named(s3: S3Place) -> None:
    s3.proxy.faults = [answered(501, "NotImplemented", method="PUT")]
    bucket = s3.open()
    with pytest.raises(NotSupported):
        bucket.put(KEY, b"x", create=True)
    assert bucket.conditions


def test_a_killed_or_slow_holder_of_the_lock_is_waited_for_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with creation_lock("place", 1.0):
        began = time.monotonic()
        with pytest.raises(CreationLockTaken), creation_lock("place", 0.2):
            pass
        assert 0.2 <= time.monotonic() - began < 1.0
    with creation_lock("place", 0.0):
        pass
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    (tmp_path / "elsewhere").mkdir()
    for lock in folder.iterdir():
        lock.unlink()
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises((PathRefused, FileExistsError)), creation_lock("place", 0.0):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


# Signed addresses and boto3


def test_a_busy_bucket_is_asked_again_through_a_signed_address(
    s3: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDROW_BUCKET_ENDPOINT", s3.proxy.url)
    digest = "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8"
    to, of = (s3.open().signed_url("t", verb, 60).reveal() for verb in ("PUT", "GET"))
    s3.proxy.faults = [
        Fault("answer", "PUT", status=503, body=b"<Error><Code>SlowDown</Code></Error>")
    ]
    put(to, b"t")
    s3.proxy.faults = [Fault("answer", "GET", status=409)]
    assert fetch(of, size=1, sha256=digest) == b"t"
    s3.proxy.faults = [answered(403, "AccessDenied", "<Message>Request has expired</Message>")]
    with pytest.raises(UploadFailed, match=r"RequestExpired.*address has expired"):
        put(to, b"t")
    with pytest.raises(DownloadFailed, match="address has expired"):
        fetch(of, size=1, sha256=digest)
    s3.proxy.faults = [answered(503, "SlowDown")]
    began = time.monotonic()
    with pytest.raises(UploadFailed, match="SlowDown"):
        put(to, b"t", seconds=1.0)
    assert time.monotonic() - began < 2.0


def test_unfinished_uploads_that_cannot_be_cleared_say_why(s3: S3Place) -> None:
    client = S3Resource(
        endpoint_url=s3.proxy.url,
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )
    s3.proxy.faults = [answered(403, "RequestTimeTooSkewed", "<Message>too far</Message>")]
    with pytest.raises(ObjectStoreError, match=r"RequestTimeTooSkewed: too far.*timesyncd"):
        clear_unfinished(client, s3.open(), "5Grw")


def test_parts_meet_the_same_answers(s3: S3Place) -> None:
    data = os.urandom(2 * PART)
    for fault, named in (
        (answered(403, "RequestTimeTooSkewed", method="POST"), ClockSkewed),
        (answered(403, "QuotaExceeded", method="PUT"), BucketFull),
        (answered(404, "NoSuchBucket", method="POST"), BucketMissing),
    ):
        s3.proxy.faults = [fault]
        with pytest.raises(named, match=KEY):
            s3.open(part_bytes=PART).put(KEY, data, create=True, within=5.0)
    assert s3.direct().head(KEY) is None
    # Amazon wants all parts once more.
    conflict = answered(409, "ConditionalRequestConflict", method="POST", part="uploadId=")
    conflict.times = 1
    s3.proxy.faults = [conflict]
    s3.proxy.seen.clear()
    s3.open(part_bytes=PART).put(KEY, data, create=True)
    assert s3.proxy.count("POST", "?uploads") == 2
    assert s3.direct().get(KEY) == data


def test_a_server_that_does_not_answer_says_nothing_of_rights(s3: S3Place) -> None:
    s3.proxy.faults = [answered(501, "NotImplemented")]
    with pytest.raises(NotSupported):
        check_key_pair(s3.open(), s3.open(read_only=True))
    s3.proxy.faults = [answered(503, "SlowDown")]
    with pytest.raises((BucketUnavailable, NotStoredInTime)):
        check_key_pair(s3.open(read_seconds=0.2), s3.open(read_only=True), seconds=0.5)
