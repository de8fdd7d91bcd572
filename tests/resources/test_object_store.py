"""The folder bucket: whole objects, named errors, keys that cannot leave it."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from tests.support.disks import run_on_failing_disks
from windrow.resources.storage.object_store import (
    Bucket,
    BucketRefused,
    BucketUnavailable,
    InvalidKey,
    ObjectExists,
    ObjectMissing,
    ObjectStoreError,
    ObjectTooLarge,
    open_bucket,
)

KEY = "grail/windows/5Grw-window-60.parquet"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(tmp_path / "bucket")


def test_what_is_put_is_got(bucket: Bucket, tmp_path: Path) -> None:
    info = bucket.put(KEY, b"rows")
    assert (info.key, info.size) == (KEY, 4)
    assert bucket.head(KEY) == info
    mtime = (tmp_path / "bucket" / KEY).stat().st_mtime
    assert info.last_modified == pytest.approx(mtime, rel=0, abs=1e-5)
    assert bucket.get(KEY) == b"rows"
    assert bucket.put(KEY, b"newer rows").etag != info.etag
    assert bucket.get(KEY) == b"newer rows"


def test_the_same_class_serves_any_obstore_store() -> None:
    bucket = Bucket(MemoryStore(), "memory")
    bucket.put("a/b", b"x", create=True)
    with pytest.raises(ObjectExists):
        bucket.put("a/b", b"y", create=True)
    assert [info.key for info in bucket.list("a/")] == ["a/b"]


def test_a_file_url_names_the_same_bucket(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a", b"x")
    assert open_bucket(f"file://{tmp_path}/bucket").get("a") == b"x"


def test_other_urls_are_refused_by_name() -> None:
    with pytest.raises(ObjectStoreError, match="not supported yet"):
        open_bucket("gs://bucket/x")


@pytest.mark.parametrize("size", [0, 5, 12_000_000])
@pytest.mark.parametrize("create", [False, True])
def test_files_travel_both_ways(bucket: Bucket, tmp_path: Path, size: int, create: bool) -> None:
    data = os.urandom(size)
    (tmp_path / "up").write_bytes(data)
    assert bucket.put_file(KEY, tmp_path / "up", create=create).size == size
    assert bucket.get_to_file(KEY, tmp_path / "new folder" / "down").size == size
    assert (tmp_path / "new folder" / "down").read_bytes() == data
    assert _names(tmp_path / "new folder") == ["down"]


def test_create_keeps_the_first_object(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(KEY, b"first", create=True)
    (tmp_path / "second").write_bytes(b"second")
    with pytest.raises(ObjectExists, match=KEY):
        bucket.put(KEY, b"second", create=True)
    with pytest.raises(ObjectExists):
        bucket.put_file(KEY, tmp_path / "second", create=True)
    assert bucket.get(KEY) == b"first"


def test_a_race_to_create_has_one_winner(bucket: Bucket) -> None:
    def attempt(number: int) -> bool:
        try:
            bucket.put(KEY, b"%d" % number, create=True)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(32)))
    assert won.count(True) == 1
    assert bucket.get(KEY) == b"%d" % won.index(True)


def test_a_missing_object_is_named(bucket: Bucket, tmp_path: Path) -> None:
    assert bucket.head(KEY) is None
    bucket.delete(KEY)
    with pytest.raises(ObjectMissing, match=KEY):
        bucket.get(KEY)
    with pytest.raises(ObjectMissing):
        bucket.get_to_file(KEY, tmp_path / "down")
    assert not (tmp_path / "down").exists()
    with pytest.raises(FileNotFoundError):
        bucket.put_file(KEY, tmp_path / "no such file")


def test_an_object_larger_than_allowed_is_not_read(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(KEY, b"12345")
    assert bucket.get(KEY, max_bytes=5) == b"12345"
    with pytest.raises(ObjectTooLarge):
        bucket.get(KEY, max_bytes=4)
    with pytest.raises(ObjectTooLarge):
        bucket.get_to_file(KEY, tmp_path / "down", max_bytes=4)
    assert not (tmp_path / "down").exists()


def test_a_list_is_sorted_and_can_continue(bucket: Bucket) -> None:
    keys = ["a/10", "a/2", "a/sub/x", "ab/1", "b"]
    for key in reversed(keys):
        bucket.put(key, b"")
    assert [info.key for info in bucket.list()] == keys
    assert [info.key for info in bucket.list("a/")] == ["a/10", "a/2", "a/sub/x"]
    assert [info.key for info in bucket.list("a")] == ["a/10", "a/2", "a/sub/x", "ab/1"]
    assert [info.key for info in bucket.list("a/1")] == ["a/10"]
    assert [info.key for info in bucket.list(start_after="a/2")] == ["a/sub/x", "ab/1", "b"]
    assert bucket.list("nothing/") == []


def test_a_deleted_object_is_gone(bucket: Bucket) -> None:
    bucket.put("a/x", b"")
    bucket.delete("a/x")
    assert bucket.list() == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../outside",
        "a/../../outside",
        "a/./b",
        "a//b",
        "a/",
        "a\x00b",
        "a\nb",
        "a\\b",
        "a%2e%2e/b",
        "ключ",
        "a#1",
        "a/" + "b" * 241,
        "a/" * 512 + "b",
    ],
)
def test_a_hostile_key_reaches_no_file(bucket: Bucket, tmp_path: Path, key: str) -> None:
    for use in (
        lambda: bucket.put(key, b"x"),
        lambda: bucket.put_file(key, Path(__file__)),
        lambda: bucket.get(key),
        lambda: bucket.get_to_file(key, tmp_path / "down"),
        lambda: bucket.head(key),
        lambda: bucket.delete(key),
    ):
        with pytest.raises(InvalidKey):
            use()
    assert _names(tmp_path) == ["bucket"]
    assert _names(tmp_path / "bucket") == []


def test_a_hostile_prefix_lists_nothing_outside(bucket: Bucket) -> None:
    with pytest.raises(InvalidKey):
        bucket.list("../")


def test_a_key_below_an_object_is_refused(bucket: Bucket) -> None:
    bucket.put("a", b"x")
    with pytest.raises(BucketRefused, match="Not a directory"):
        bucket.put("a/b", b"x")


def test_a_key_that_is_a_folder_is_a_named_failure(bucket: Bucket) -> None:
    bucket.put("a/b", b"x")
    with pytest.raises(BucketUnavailable, match="directory"):
        bucket.put("a", b"x")


def test_a_bucket_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BucketRefused):
        open_bucket(tmp_path / "file" / "bucket")
    with pytest.raises(BucketRefused):
        open_bucket(tmp_path / "file")


def test_full_and_read_only_disks_are_named_and_leave_nothing(tmp_path: Path) -> None:
    script = """
import os
import pytest
from windrow.resources.files import DiskFull, PathRefused
from windrow.resources.storage.object_store import BucketFull, BucketRefused, open_bucket

big = os.urandom(2_000_000)
source = small.parent / "source"
source.write_bytes(big)

full = open_bucket(small / "bucket")
full.put("kept", b"kept")
for put in (
    lambda: full.put("k/x", big),
    lambda: full.put("k/x", big, create=True),
    lambda: full.put("kept", big),
    lambda: full.put_file("k/x", source),
    lambda: full.put_file("k/x", source, create=True),
):
    with pytest.raises(BucketFull, match="full"):
        put()
assert [info.key for info in full.list()] == ["kept"]
assert full.get("kept") == b"kept"

roomy = open_bucket(small.parent / "roomy")
roomy.put("big", big)
with pytest.raises(DiskFull):
    roomy.get_to_file("big", small / "down")
assert os.listdir(small) == ["bucket"]
with pytest.raises(PathRefused):
    roomy.get_to_file("big", read_only / "down")

refusing = open_bucket(read_only)
for use in (
    lambda: refusing.put("x", b"x"),
    lambda: refusing.put("new/x", b"x", create=True),
    lambda: refusing.delete("there"),
):
    with pytest.raises(BucketRefused, match="Read-only"):
        use()
assert refusing.get("there") == b"there"
with pytest.raises(BucketRefused):
    open_bucket(read_only / "new")
"""
    read_only = tmp_path / "read only"
    read_only.mkdir()
    (read_only / "there").write_bytes(b"there")
    run_on_failing_disks(script, small=tmp_path / "small", read_only=read_only)


@pytest.mark.parametrize("create", [False, True])
def test_a_put_killed_half_way_shows_no_object(tmp_path: Path, create: bool) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        import obstore
        from windrow.resources.storage.object_store import open_bucket
        bucket = open_bucket({str(tmp_path / "bucket")!r})
        data = bytes(400_000_000)
        print("ready", flush=True)
        bucket.put("big", data, create={create})
    """)
    bucket = open_bucket(tmp_path / "bucket")
    bucket.put("other", b"x")
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    folder = tmp_path / "bucket"
    while not any(path.name.startswith("big") for path in folder.iterdir()):
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert any(path.name.startswith("big#") for path in folder.iterdir())
    assert [info.key for info in bucket.list()] == ["other"]
    assert bucket.head("big") is None
    bucket.put("big", b"again", create=create)
    assert bucket.get("big") == b"again"
