"""S3 that is busy, resets, forgets what it answered or whom it let in, around whole windows."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from tests.conftest import S3Place
from tests.faults.runs import Home, assert_completes, assert_named, assert_refused
from tests.support.embedded import WINDOW
from tests.support.flaky_proxy import Fault
from tests.support.radosgw import KEY_ID, READ_KEY_ID, READ_SECRET, SECRET
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.pipelines.build import build
from windrow.pipelines.demo.network import trainer
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.publishing import publish_full
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage import s3_bucket

WEIGHTS = "FULL/model.safetensors"


def make_home(s3: S3Place, tiny: Path, path: Path, **variables: str) -> Home:
    """A home whose bucket, checkpoints included, is on an S3 server behind the proxy."""
    given = {
        "WINDROW_HOME": str(path),
        "WINDROW_BUCKET": f"s3://{s3.bucket}",
        "WINDROW_BUCKET_ENDPOINT": s3.proxy.url,
        "WINDROW_BUCKET_REGION": "us-east-1",
        "WINDROW_BUCKET_PATH_STYLE": "yes",
        "WINDROW_BUCKET_WRITE_KEY_ID": KEY_ID,
        "WINDROW_BUCKET_WRITE_SECRET": SECRET,
        "WINDROW_BUCKET_READ_KEY_ID": READ_KEY_ID,
        "WINDROW_BUCKET_READ_SECRET": READ_SECRET,
    }
    if not s3.direct().list():
        publish_full(s3.direct(), verify_checkpoint(tiny), ready_window=0, sign=trainer().sign)
    definitions = build(Settings.read(given | variables))
    home = Home(path, definitions, dg.DagsterInstance.ephemeral())
    home.resource("bucket")._read_seconds = 1.0
    s3.proxy.seen.clear()
    return home


@pytest.fixture
def home(s3: S3Place, tiny: Path, tmp_path: Path) -> Home:
    return make_home(s3, tiny, tmp_path / "home")


@pytest.mark.parametrize(
    "kinds", [["busy", "stored_then_reset"], ["reset", "stored_then_busy"]], ids=" and ".join
)
def test_an_upload_is_stored_once(
    s3: S3Place, home: Home, undisturbed: pa.Table, kinds: list[str]
) -> None:
    s3.proxy.faults = [Fault(kind, "PUT", "grail/windows/") for kind in kinds]
    assert_completes(home, undisturbed)
    assert s3.proxy.count("PUT", "grail/windows/") == 2
    uploaded = home.uploaded()
    assert_completes(home, undisturbed)
    assert home.uploaded() == uploaded
    assert s3.proxy.count("PUT", "grail/windows/") == 2
    (row,) = home.resource("lake").read("uploads", WINDOW).to_pylist()
    assert row["etag"] == uploaded.etag


def test_a_server_that_stays_busy(
    s3: S3Place, home: Home, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "WRITE_SECONDS", 1.0)
    s3.proxy.faults = [Fault("busy", "PUT", "grail/windows/", times=99)]
    refused = home.mine()
    assert_refused(home, refused, "upload", "NotStoredInTime", home.key(), "503", "Run again")
    assert home.uploaded() is None
    assert home.window_file().exists()
    s3.proxy.faults = []
    assert_completes(home, undisturbed)


def test_the_deadline_ends_an_upload(s3: S3Place, tiny: Path, tmp_path: Path) -> None:
    home = make_home(s3, tiny, tmp_path / "home", WINDROW_CHAIN_CLOCK="stepped")
    chain = home.resource("chain")
    window = window_start(chain.block()) + WINDOW_BLOCKS
    chain.advance_to(window)
    # A line so slow that no second attempt would end before the deadline.
    home.resource("bucket")._rate = 1.0
    s3.proxy.faults = [Fault("busy", "PUT", "grail/windows/", times=99)]
    refused = home.mine(1, window)
    words = (home.key(window), "was not stored", "503")
    assert_refused(home, refused, "upload", "NotStoredInTime", *words, window=window)
    assert s3.proxy.count("PUT", "grail/windows/") == 1
    s3.proxy.faults = []
    assert home.mine(1, window).success
    assert home.uploaded(window) is not None


def test_a_key_that_is_revoked_in_the_middle(
    s3: S3Place, home: Home, undisturbed: pa.Table
) -> None:
    s3.proxy.faults = [Fault("refused", part="grail/windows/", times=999)]
    refused = home.mine()
    assert_refused(home, refused, "upload", "BucketRefused", home.key(), "credentials")
    assert SECRET not in str(home.faults())
    assert KEY_ID not in str(home.faults())
    assert s3.proxy.count("PUT") == 0
    s3.proxy.faults = []
    assert_completes(home, undisturbed)


def test_a_connection_that_breaks_in_a_checkpoint(
    s3: S3Place, home: Home, undisturbed: pa.Table
) -> None:
    s3.proxy.faults = [Fault("cut", "GET", WEIGHTS), Fault("reset", "GET", WEIGHTS, times=99)]
    refused = home.mine()
    assert_named(home, refused, "checkpoint", "BucketUnavailable", "model.safetensors")
    (part,) = (home.path / "cache").rglob(".*.part")
    assert part.stat().st_size > 0
    s3.proxy.faults = []
    s3.proxy.seen.clear()
    assert_completes(home, undisturbed)
    assert s3.proxy.count("GET", WEIGHTS) == 1
    assert s3.proxy.count("GET", "FULL/tokenizer.json") == 0
    assert not list((home.path / "cache").rglob("*.part*"))


def test_a_flipped_byte_in_a_checkpoint(s3: S3Place, home: Home, undisturbed: pa.Table) -> None:
    s3.proxy.faults = [Fault("flipped", "GET", WEIGHTS)]
    refused = home.mine()
    assert_refused(home, refused, "checkpoint", "WrongHash", "model.safetensors")
    assert_completes(home, undisturbed)


@pytest.mark.live
def test_a_checkpoint_that_vanishes(
    s3: S3Place, home: Home, tiny: Path, undisturbed: pa.Table
) -> None:
    for info in s3.direct().list("grail/checkpoints/"):
        s3.direct().delete(info.key)
    refused = home.mine()
    assert_refused(home, refused, "checkpoint", "NoReadyCheckpoint", str(WINDOW))
    publish_full(s3.direct(), verify_checkpoint(tiny), ready_window=0, sign=trainer().sign)
    assert_completes(home, undisturbed)


@pytest.mark.live
def test_a_half_uploaded_checkpoint(
    s3: S3Place, home: Home, tiny: Path, undisturbed: pa.Table
) -> None:
    key = next(i.key for i in s3.direct().list("grail/checkpoints/") if "tokenizer.json" in i.key)
    content = s3.direct().get(key)
    s3.direct().delete(key)
    refused = home.mine()
    assert_refused(home, refused, "checkpoint", "MissingCheckpointFile", "tokenizer.json")
    s3.direct().put(key, content)
    assert_completes(home, undisturbed)
