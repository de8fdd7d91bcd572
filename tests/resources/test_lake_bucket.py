"""A lake in a bucket: the same answers, and nothing else in reach."""

import pytest

from tests.support.lake_rows import rows_of
from tests.support.radosgw import KEY_ID, SECRET, make_bucket
from windrow.pipelines.commands.named_queries import named_queries
from windrow.resources.storage.s3_access import S3Access, S3AccessMissing
from windrow.resources.warehouse.bucket import BucketLake
from windrow.resources.warehouse.catalogue import QueryFailed, QueryRefused
from windrow.resources.warehouse.files import LakeError
from windrow.resources.warehouse.lake import Lake

DAY = 240 * 30
KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}


def test_credentials_are_those_of_every_s3_tool_and_are_not_shown() -> None:
    access = S3Access.from_environment(
        KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:7480", "AWS_DEFAULT_REGION": "auto"}
    )
    assert (access.endpoint, access.region, access.token) == ("http://127.0.0.1:7480", "auto", None)
    assert access.secret.reveal() == SECRET
    assert SECRET not in repr(access)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "k"}, "needs AWS_SECRET_ACCESS_KEY"),
        (KEYS | {"AWS_ENDPOINT_URL": "127.0.0.1:7480"}, "AWS_ENDPOINT_URL must be"),
        (KEYS | {"AWS_ENDPOINT_URL": "file:///etc"}, "AWS_ENDPOINT_URL must be"),
    ],
)
def test_missing_or_wrong_access_is_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(S3AccessMissing, match=said):
        S3Access.from_environment(environment)


@pytest.mark.parametrize(
    "url", ["", "lake", "/lake", "s3://", "s3://b", "s3://bucket/../x", "s3://bucket/*", "s3://b'c"]
)
def test_what_is_no_folder_of_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(LakeError, match="is no lake"):
        BucketLake(url, S3Access.from_environment(KEYS))


def test_a_server_that_cannot_be_reached_is_named_without_the_secret() -> None:
    access = S3Access.from_environment(KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    with pytest.raises(LakeError, match="no readable lake at s3://bucket/lake") as raised:
        BucketLake("s3://bucket/lake", access).query("SELECT * FROM faults")
    assert SECRET not in str(raised.value)


@pytest.fixture(scope="module")
def lakes(radosgw: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, BucketLake]:
    """A lake with a merged day and a window that is not merged, and its copy in a bucket."""
    lake = Lake(tmp_path_factory.mktemp("lakes") / "lake")
    for window in (0, 30, DAY):
        for name in ("a", "b"):
            rows = rows_of("verdicts", window, 3, hotkey=name, check="proof", margin=0.5)
            lake.write("verdicts", window, name, rows)
            lake.write("faults", window, name, rows_of("faults", window, 2, hotkey=name))
    lake.compact(before=DAY, grace_seconds=0)
    bucket = make_bucket("lakes", radosgw)
    bucket.put_object(Bucket="lakes", Key="some/secret.txt", Body=b"hunter2")
    for path in lake.root.rglob("*"):
        if path.is_file():
            key = f"some/lake/{path.relative_to(lake.root)}"
            bucket.put_object(Bucket="lakes", Key=key, Body=path.read_bytes())
    access = S3Access.from_environment(KEYS | {"AWS_ENDPOINT_URL": radosgw})
    return lake, BucketLake("s3://lakes/some/lake", access)


@pytest.mark.live
def test_a_copied_lake_gives_the_same_answers(lakes: tuple[Lake, BucketLake]) -> None:
    local, remote = lakes
    everything = "SELECT * FROM {} ORDER BY ALL"
    for table in ("verdicts", "faults", "check_totals", "rollouts"):
        expected = local.query(everything.format(table))
        assert remote.query(everything.format(table)).equals(expected), table
    query = named_queries()["margin_drift"].sql
    assert remote.query(query).equals(local.query(query))
    assert remote.query("SELECT count(*) AS n FROM faults WHERE hotkey = ?", ["a"])["n"][0].as_py()


@pytest.mark.live
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('s3://lakes/some/secret.txt')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_text('{server}/lakes/some/secret.txt')",
        "COPY (SELECT 1) TO 's3://lakes/some/lake/x.csv'",
        "SELECT * FROM duckdb_secrets(redact=false)",
        "DROP VIEW faults",
        "SELECT 1; SELECT 2",
    ],
)
def test_a_query_reaches_nothing_but_the_lake(
    lakes: tuple[Lake, BucketLake], radosgw: str, sql: str
) -> None:
    with pytest.raises((QueryRefused, QueryFailed)):
        lakes[1].query(sql.format(server=radosgw))
    secrets = lakes[1].query("SELECT * FROM duckdb_secrets()")
    assert SECRET not in str(secrets.to_pylist())


@pytest.mark.live
def test_wrong_keys_and_other_folders_hold_no_lake(
    lakes: tuple[Lake, BucketLake], radosgw: str
) -> None:
    wrong = KEYS | {"AWS_ENDPOINT_URL": radosgw, "AWS_SECRET_ACCESS_KEY": "a wrong secret"}
    right = KEYS | {"AWS_ENDPOINT_URL": radosgw}
    for url, environment in (
        ("s3://lakes/some/lake", wrong),
        ("s3://lakes/elsewhere", right),
        ("s3://nobucket/some/lake", right),
    ):
        with pytest.raises(LakeError, match="no readable lake") as raised:
            BucketLake(url, S3Access.from_environment(environment)).query("FROM faults")
        assert "a wrong secret" not in str(raised.value)
