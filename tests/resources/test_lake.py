"""The lake: whole files, written once, safe to query."""

import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.disks import run_on_failing_disks
from tests.support.lake_rows import rows_of
from tests.support.processes import run_together
from windrow.resources.warehouse import files as lake_files
from windrow.resources.warehouse.catalogue import QueryFailed, QueryRefused
from windrow.resources.warehouse.files import (
    LakeError,
    LakeFileDamaged,
    LakeFileExists,
    LakeFileMissing,
    LakeSchemaError,
    UnknownDataset,
)
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS

COUNT = "SELECT count(*) AS n FROM faults"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "my lake's")


def counted(lake: Lake) -> int:
    return int(lake.query(COUNT)["n"][0].as_py())


def test_rows_come_back_as_written(lake: Lake) -> None:
    rows = rows_of("rollouts", 60, tokens=[1, 2, 3], reward=0.5, success=True)
    path = lake.write("rollouts", 60, "hk", rows)
    assert path == lake.root / "rollouts" / "window_start=60" / "hk.parquet"
    assert lake.read("rollouts", 60).equals(rows)
    assert lake.read("rollouts", 60, "hk").equals(rows)
    assert lake.query("SELECT * FROM rollouts").equals(rows)


def test_a_file_says_what_it_is_and_which_run_made_it(lake: Lake) -> None:
    path = lake.write("faults", 60, "hk.beacon", rows_of("faults", 60), run_id="run-1")
    metadata = pq.read_schema(path).metadata
    assert metadata[b"windrow.run_id"] == b"run-1"
    assert metadata[b"windrow.schema_version"] == b"1"
    assert metadata[b"windrow.dataset"] == b"faults"


def test_a_table_of_no_rows_is_a_file_too(lake: Lake) -> None:
    lake.write("faults", 60, "hk", rows_of("faults", 60, count=0))
    assert lake.exists("faults", 60)
    assert lake.read("faults", 60).num_rows == 0


def test_rows_are_written_once_unless_replaced(lake: Lake) -> None:
    lake.write("faults", 60, "hk", rows_of("faults", 60, reason="first"))
    with pytest.raises(LakeFileExists, match="window 60, hk"):
        lake.write("faults", 60, "hk", rows_of("faults", 60, reason="second"))
    assert lake.read("faults", 60)["reason"].to_pylist() == ["first"] * 2
    lake.write("faults", 60, "hk", rows_of("faults", 60, 3, reason="third"), replace=True)
    assert lake.read("faults", 60)["reason"].to_pylist() == ["third"] * 3
    assert counted(lake) == 3


def test_several_names_share_a_window(lake: Lake) -> None:
    for name in ("b", "a"):
        lake.write("faults", 60, name, rows_of("faults", 60, 1, hotkey=name))
    assert lake.names("faults", 60) == ["a", "b"]
    assert lake.read("faults", 60)["hotkey"].to_pylist() == ["a", "b"]
    assert lake.exists("faults", 60, "a")
    assert not lake.exists("faults", 60, "c")
    assert not lake.exists("faults", 90)
    for name in (None, "c"):
        with pytest.raises(LakeFileMissing):
            lake.read("faults", 90 if name is None else 60, name)


@pytest.mark.parametrize(
    ("dataset", "window", "name"),
    [
        ("rumours", 60, "hk"),
        ("../faults", 60, "hk"),
        ("faults", 61, "hk"),
        ("faults", -30, "hk"),
        ("faults", 60, "../hk"),
        ("faults", 60, "a/b"),
        ("faults", 60, ".hidden"),
        ("faults", 60, ""),
        ("faults", 60, "a" * 129),
    ],
)
def test_no_name_leaves_the_lake(lake: Lake, dataset: str, window: int, name: str) -> None:
    with pytest.raises(LakeError):
        lake.write(dataset, window, name, rows_of("faults", window))
    with pytest.raises(LakeError):
        lake.path(dataset, window, name)


def test_rows_must_have_the_columns_of_their_dataset(lake: Lake) -> None:
    rows = rows_of("faults", 60)
    for wrong, said in (
        (rows.drop_columns(["recorded_at"]), "recorded_at is missing"),
        (rows.append_column("extra", pa.nulls(2)), "extra is no column"),
        (
            rows.drop_columns(["recorded_at"]).append_column("recorded_at", pa.array([1, 2])),
            "recorded_at is int64, not double",
        ),
        (rows.append_column("recorded_at", rows["recorded_at"]), "twice"),
        (rows_of("faults", 90), "another window"),
    ):
        with pytest.raises(LakeSchemaError, match=said):
            lake.write("faults", 60, "hk", wrong)
    assert not lake.exists("faults", 60)
    lake.write("faults", 60, "hk", rows.select(list(reversed(rows.column_names))))
    assert lake.read("faults", 60).equals(rows)


def test_row_groups_are_as_large_as_fits_in_memory(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row_groups(window: int, rows: pa.Table) -> list[int]:
        metadata = pq.read_metadata(lake.write("rollouts", window, "hk", rows))
        return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]

    monkeypatch.setattr(lake_files, "ROW_GROUP_BYTES", 1_000_000)
    monkeypatch.setattr(lake_files, "ROW_GROUP_ROWS", 1000)
    assert row_groups(60, rows_of("rollouts", 60, 2500, tokens=[1])) == [1000, 1000, 500]
    long = rows_of("rollouts", 90, 25, tokens=list(range(25_000)))
    assert row_groups(90, long) == [8, 8, 9]
    assert row_groups(120, rows_of("rollouts", 120, 2, tokens=list(range(500_000)))) == [1, 1]
    assert row_groups(150, rows_of("rollouts", 150, 0)) == []
    assert lake.read("rollouts", 90).equals(long)


def test_an_older_file_reads_with_nulls_for_new_columns(lake: Lake) -> None:
    path = lake.write("faults", 60, "hk", rows_of("faults", 60, reason="old"))
    old = pq.read_table(path, partitioning=None).drop_columns(["detail"])
    pq.write_table(old, path)
    assert lake.read("faults", 60)["detail"].to_pylist() == [None, None]
    assert (
        lake.query("SELECT reason, detail FROM faults").to_pylist()
        == [{"reason": "old", "detail": None}] * 2
    )


def test_a_file_of_another_version_or_dataset_is_refused(lake: Lake) -> None:
    path = lake.write("faults", 60, "hk", rows_of("faults", 60))
    table = pq.read_table(path, partitioning=None)
    for key, value in ((b"windrow.schema_version", b"99"), (b"windrow.dataset", b"scores")):
        changed = {**(table.schema.metadata or {}), key: value}
        pq.write_table(table.replace_schema_metadata(changed), path)
        with pytest.raises(LakeSchemaError, match=value.decode()):
            lake.read("faults", 60)


def test_a_damaged_file_is_named(lake: Lake) -> None:
    path = lake.write("faults", 60, "hk", rows_of("faults", 60))
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1" + bytes(40), whole[:-8], whole[:4] + bytes(60) + whole[64:]):
        path.write_bytes(damaged)
        with pytest.raises(LakeFileDamaged, match=r"hk\.parquet"):
            lake.read("faults", 60)


def test_an_empty_lake_has_every_view_with_its_columns(lake: Lake) -> None:
    for dataset in DATASETS.values():
        table = lake.query(f"SELECT * FROM {dataset.name}")
        assert table.num_rows == 0
        assert table.column_names == dataset.schema.names
        for field in dataset.schema:
            # DuckDB knows binary values of one length as binary values.
            fixed = pa.types.is_fixed_size_binary(field.type)
            assert table.schema.field(field.name).type == (pa.binary() if fixed else field.type)


def test_the_catalogue_explains_its_columns(lake: Lake) -> None:
    comments = lake.query(
        "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'uploads'"
    )
    assert dict(zip(*comments.to_pydict().values(), strict=True)) == DATASETS["uploads"].columns


def test_a_window_filter_opens_only_its_files(lake: Lake) -> None:
    for window in range(0, 600, 30):
        lake.write("faults", window, "hk", rows_of("faults", window))
    with duckdb.connect(str(lake.catalogue), read_only=True) as connection:
        plan = connection.execute(
            "EXPLAIN SELECT count(*) FROM faults WHERE window_start >= 540"
        ).fetchall()[0][1]
    assert "Scanning Files: 2/21" in " ".join(plan.split())


def test_a_catalogue_kept_open_sees_new_windows(lake: Lake) -> None:
    with duckdb.connect(str(lake.catalogue), read_only=True) as connection:
        lake.write("faults", 60, "hk", rows_of("faults", 60))
        assert connection.execute(COUNT).fetchall() == [(2,)]


def test_a_moved_lake_gets_a_new_catalogue(lake: Lake, tmp_path: Path) -> None:
    lake.write("faults", 60, "hk", rows_of("faults", 60))
    moved = Lake(lake.root.rename(tmp_path / "moved"))
    assert counted(moved) == 2


def test_parameters_are_bound_not_pasted(lake: Lake) -> None:
    lake.write("faults", 60, "hk", rows_of("faults", 60, reason="it's"))
    sql = "SELECT count(*) AS n FROM faults WHERE reason = ?"
    assert lake.query(sql, ["it's"])["n"].to_pylist() == [2]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t AS SELECT 1",
        "COPY (SELECT 1) TO '{lake}/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/x.csv'",
        "COPY (SELECT 1) TO '{outside}'",
        "DROP VIEW faults",
        "ATTACH '{outside}'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; COPY (SELECT 1) TO '{lake}/x.csv'",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_text('{lake}/../secret')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    ],
)
def test_a_query_reaches_nothing_but_the_lake(lake: Lake, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret").write_text("hunter2")
    filled = sql.format(
        lake=str(lake.root).replace("'", "''"),
        outside=tmp_path / "outside",
        secret=tmp_path / "secret",
    )
    with pytest.raises((QueryRefused, QueryFailed)):
        lake.query(filled)
    assert sorted(path.name for path in tmp_path.iterdir()) == [lake.root.name, "secret"]
    assert not (lake.root / "x.csv").exists()
    assert counted(lake) == 0


def test_a_wrong_query_is_a_named_error(lake: Lake) -> None:
    for sql in ("SELEC 1", "SELECT nothing FROM faults", "SELECT 1/'x'"):
        with pytest.raises(QueryFailed):
            lake.query(sql)


def test_threads_query_at_once(lake: Lake) -> None:
    lake.write("faults", 60, "hk", rows_of("faults", 60))
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(counted(lake))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2] * 6


WRITER = """
import sys
from pathlib import Path
from tests.support.lake_rows import rows_of
from windrow.resources.warehouse import files as lake_files
from windrow.resources.warehouse.lake import Lake

number, root = int(sys.argv[1]), Path(sys.argv[2])
lake = Lake(root)
last = -1
for turn in range(12):
    if number < 3:
        lake.write("faults", 30 * turn, f"hk{number}", rows_of("faults", 30 * turn, 5))
        lake.write("faults", 30 * 99, f"hk{number}", rows_of("faults", 30 * 99, 5), replace=True)
    else:
        count = lake.query("SELECT count(*) AS n FROM faults")["n"][0].as_py()
        assert count % 5 == 0 and count >= last, (count, last)
        last = count
"""


def test_processes_write_and_read_at_once(lake: Lake) -> None:
    run_together(WRITER, 5, lake.root)
    assert counted(lake) == 3 * 13 * 5
    assert not list(lake.root.rglob("*.tmp"))


def test_a_race_to_write_one_window_has_one_winner(lake: Lake) -> None:
    script = """
import sys
from pathlib import Path
from tests.support.lake_rows import rows_of
from windrow.resources.warehouse import files as lake_files
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.files import LakeFileExists

lake = Lake(Path(sys.argv[2]))
won = 0
for window in range(0, 300, 30):
    try:
        lake.write("faults", window, "hk", rows_of("faults", window))
        won += 1
    except LakeFileExists:
        pass
print(won)
"""
    outputs = run_together(script, 4, lake.root)
    assert sum(int(output) for output in outputs) == 10


def test_full_and_read_only_disks_are_named_and_leave_nothing(tmp_path: Path) -> None:
    script = """
import random
import pytest
from tests.support.lake_rows import rows_of
from windrow.resources.files import DiskFull, PathRefused
from windrow.resources.warehouse import files as lake_files
from windrow.resources.warehouse.lake import Lake

read_only_lake = Lake(read_only / "lake")
with pytest.raises(PathRefused):
    read_only_lake.write("faults", 90, "hk", rows_of("faults", 90))
assert read_only_lake.read("faults", 60).num_rows == 2
assert read_only_lake.query("SELECT * FROM faults").num_rows == 2
with pytest.raises(PathRefused):
    Lake(read_only / "other")

lake = Lake(small / "lake")
filler = small / "filler"
filler.write_bytes(bytes(900_000))
with pytest.raises(DiskFull):
    lake.catalogue
assert not list(small.rglob("*.tmp*"))
assert not lake.root.joinpath("catalogue.duckdb").exists()
filler.unlink()
assert lake.query("SELECT * FROM faults").num_rows == 0
noise = random.Random(0)
big = rows_of("rollouts", 60, 1, tokens=[noise.getrandbits(31) for _ in range(400_000)])
with pytest.raises(DiskFull, match="free space"):
    lake.write("rollouts", 60, "hk", big)
assert not lake.exists("rollouts", 60)
assert not list(small.rglob("*.tmp*"))
"""
    read_only = tmp_path / "read only"
    Lake(read_only / "lake").write("faults", 60, "hk", rows_of("faults", 60))
    run_on_failing_disks(script, small=tmp_path / "small", read_only=read_only)


def test_unknown_datasets_are_listed(lake: Lake) -> None:
    with pytest.raises(UnknownDataset, match="rollouts"):
        lake.read("rumours", 60)
