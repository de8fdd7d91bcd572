"""deploy/live/dagster.yaml: logs of runs in a real bucket, state in PostgreSQL if wanted."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_aws.s3 import S3Resource

from tests.support.radosgw import KEY_ID, READ_KEY_ID, READ_SECRET, SECRET, make_bucket
from windrow.networks.grail.bucket import window_file_key
from windrow.pipelines.build import build
from windrow.pipelines.live import window_resources
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage import expiry
from windrow.resources.storage.expiry import clear_unfinished
from windrow.resources.storage.objects import ObjectStoreError
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import open_s3

ROOT = Path(__file__).parents[2]
LIVE = ROOT / "deploy" / "live" / "dagster.yaml"
SAID = "a line that the step prints"


def test_only_what_is_stored_where_differs_from_the_embedded_instance() -> None:
    live, embedded = (yaml.safe_load(path.read_text()) for path in (LIVE, ROOT / "dagster.yaml"))
    differing = {
        name for name in live.keys() | embedded.keys() if live.get(name) != embedded.get(name)
    }
    assert differing == {"compute_logs"}


@pytest.fixture
def logs(
    radosgw: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> str:
    """A bucket for logs, in the environment that the file refers to."""
    name = f"logs-{abs(hash(request.node.name)) % 10**9}"
    make_bucket(name, radosgw)
    monkeypatch.setenv("DAGSTER_LOG_BUCKET", name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", radosgw)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.chdir(tmp_path)
    return name


def s3(url: str) -> S3Resource:
    return S3Resource(
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )


@dg.asset
def talking(s3: S3Resource) -> dg.MaterializeResult:
    """Prints, and puts an object with the resource that Dagster gives it."""
    print(SAID)  # noqa: T201
    s3.get_client().put_object(Bucket=os.environ["DAGSTER_LOG_BUCKET"], Key="made", Body=b"x")
    return dg.MaterializeResult()


def run_and_find_logs(folder: Path, url: str, bucket: str) -> dg.DagsterInstance:
    instance = dg.DagsterInstance.from_config(str(folder))
    result = dg.materialize([talking], instance=instance, resources={"s3": s3(url)})
    assert result.success
    client = s3(url).get_client()
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=bucket)["Contents"]]
    (out,) = [
        key
        for key in keys
        if key.startswith(f"windrow/storage/{result.run_id}/") and key.endswith(".out")
    ]
    assert SAID in client.get_object(Bucket=bucket, Key=out)["Body"].read().decode()
    assert "made" in keys
    assert instance.get_run_by_id(result.run_id) is not None
    return instance


@pytest.mark.live
def test_logs_of_a_run_are_in_the_bucket(radosgw: str, logs: str) -> None:
    with run_and_find_logs(LIVE.parent, radosgw, logs) as instance:
        assert SECRET not in str(instance.info_dict())


@pytest.mark.live
def test_uploads_that_never_ended_are_cleared(radosgw: str, logs: str) -> None:
    client = s3(radosgw).get_client()
    ours, theirs = (window_file_key(hotkey, 30) for hotkey in ("ours", "theirs"))
    for key in (ours, theirs):
        client.create_multipart_upload(Bucket=logs, Key=key)
    bucket = open_s3(f"s3://{logs}", S3Access.from_environment())
    assert clear_unfinished(s3(radosgw), bucket, "ours") == []
    tomorrow = datetime.now(UTC) + timedelta(days=2)
    assert clear_unfinished(s3(radosgw), bucket, "ours", now=tomorrow) == [ours]
    assert clear_unfinished(s3(radosgw), bucket, "ours", now=tomorrow) == []
    (left,) = client.list_multipart_uploads(Bucket=logs)["Uploads"]
    assert left["Key"] == theirs
    gone = open_s3("s3://no-such-bucket", S3Access.from_environment())
    with pytest.raises(ObjectStoreError, match="lifecycle rule"):
        clear_unfinished(s3(radosgw), gone, "ours")


@pytest.mark.live
def test_the_retention_job_clears_them_with_the_write_key(
    radosgw: str,
    logs: str,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for right, key_id, secret in (
        ("WRITE", KEY_ID, SECRET),
        ("READ", READ_KEY_ID, READ_SECRET),
    ):
        monkeypatch.setenv(f"R2_{right}_ACCESS_KEY_ID", key_id)
        monkeypatch.setenv(f"R2_{right}_SECRET_ACCESS_KEY", secret)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    given = {
        "WINDROW_HOME": str(tmp_path / "home"),
        "WINDROW_CHAIN_CLOCK": "stepped",
        "WINDROW_BUCKET": f"s3://{logs}",
        "R2_ENDPOINT_URL": radosgw,
        "R2_REGION": "us-east-1",
    }
    settings = Settings.read(dict(os.environ) | given)
    hotkey = window_resources(settings)["wallet"].hotkey
    client = s3(radosgw).get_client()
    client.create_multipart_upload(Bucket=logs, Key=window_file_key(hotkey, 30))
    # As if a day had passed since.
    monkeypatch.setattr(expiry, "UPLOAD_AGE", timedelta(days=-1))
    job = build(settings).resolve_job_def("retention")
    assert job.execute_in_process(instance=instance).success
    assert "Uploads" not in client.list_multipart_uploads(Bucket=logs)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """The port of a new PostgreSQL server; it does not run as root."""
    folder.mkdir()
    before: list[str] = []
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        before = ["runuser", "-u", "postgres", "--"]
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [*before, "initdb", "-D", str(data), "-A", "trust", "-U", "windrow"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    server = subprocess.Popen(
        [
            *before,
            "postgres",
            "-D",
            str(data),
            "-p",
            str(port),
            "-k",
            str(folder),
            "-h",
            "127.0.0.1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        asked = ["pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        end = time.monotonic() + 60
        while subprocess.run(asked, capture_output=True, check=False).returncode:
            assert time.monotonic() < end
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


@pytest.mark.live
def test_state_can_be_in_postgres(
    radosgw: str, logs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dagster_postgres")
    # Debian keeps the server's programs off the path.
    found = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    monkeypatch.setenv("PATH", os.pathsep.join(found))
    if not (shutil.which("postgres") and shutil.which("initdb")):
        pytest.skip("not tested: runs in PostgreSQL (apt install postgresql)")
    with postgres(tmp_path / "pg") as port:
        for name, value in {
            "PGHOST": "127.0.0.1",
            "PGUSER": "windrow",
            "PGPASSWORD": "p",
            "PGDATABASE": "postgres",
        }.items():
            monkeypatch.setenv(name, value)
        lines = LIVE.read_text().splitlines()
        at, end = lines.index("storage:"), lines.index("local_artifact_storage:")
        block = [line.removeprefix("# ") for line in lines[at + 3 : end]]
        text = "\n".join([*lines[:at], *block, *lines[end:]])
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "dagster.yaml").write_text(text.replace("port: 5432", f"port: {port}"))
        with run_and_find_logs(tmp_path / "home", radosgw, logs) as instance:
            assert type(instance.run_storage).__name__ == "PostgresRunStorage"
