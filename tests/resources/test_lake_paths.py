"""A lake below any folder: its name is never read as a window, a column or a pattern."""

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.lake_rows import rows_of
from windrow.engine.mining.spool import GROUP_SCHEMA, Spool
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.pipelines.commands.named_queries import named_queries
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.warehouse.catalogue import QueryRefused, view_statements
from windrow.resources.warehouse.files import LakeError
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.manifest import Manifest

DAY = 240 * 30
WINDOWS = (0, 30, DAY)
COUNTS = "SELECT window_start, hotkey, count(*) AS n FROM verdicts GROUP BY ALL ORDER BY ALL"

NAMES = [
    "plain",
    "window_start=5",
    "WINDOW_START=60",
    "window_start=__HIVE_DEFAULT_PARTITION__",
    "hotkey=5Grw",
    "check=proof/window_start=30",
    "a\\b",
    "\\",
    "a\\window_start=7",
    'it\'s "quoted"; --',
    "100% %41 #x &y",
    "st*r",
    "[x]",
    "[!a]",
    "a[b",
    "a]b",
    "{a,b}",
    "~",
    "$HOME `id`",
    "ünïcödé 日本",
    "new\nline\ttab",
    "-dash",
    " blanks ",
    "s3:",
    "x" * 200,
]


def random_name(seed: int) -> str:
    letters = "ab=\\'\"%*[]{}!^-~$;:#&()@+, ü\n"
    chance = random.Random(seed)
    return "".join(chance.choices(letters, k=chance.randint(1, 24))).strip(".") or "x"


def counted(lake: Lake) -> dict[tuple[int, str], int]:
    rows = lake.query(COUNTS).to_pylist()
    return {(row["window_start"], row["hotkey"]): row["n"] for row in rows}


@pytest.mark.parametrize("name", [*NAMES, *(random_name(seed) for seed in range(3))])
def test_rows_come_back_from_below_any_folder(name: str, tmp_path: Path) -> None:
    # A pattern would find these too.
    for decoy in ("stXr", "x", "a", "b", "aXb", "plainX"):
        (tmp_path / decoy / "lake" / "verdicts" / "window_start=90").mkdir(parents=True)
        (tmp_path / decoy / "lake" / "verdicts" / "window_start=90" / "d.parquet").write_bytes(b"?")
    lake = Lake(tmp_path / name / "lake")
    expected = {}
    for window in WINDOWS:
        for hotkey in ("a", "b"):
            rows = rows_of("verdicts", window, 3, hotkey=hotkey, check="proof", margin=0.5)
            lake.write("verdicts", window, hotkey, rows)
            expected[window, hotkey] = 3
    assert counted(lake) == expected
    assert [made.rows for made in lake.compact(before=DAY, grace_seconds=0)] == [12]
    assert counted(lake) == expected
    late = rows_of("verdicts", 0, 1, hotkey="c", check="proof", margin=0.5)
    lake.write("verdicts", 0, "c", late)
    assert counted(lake) == {**expected, (0, "c"): 1}
    assert lake.read("verdicts", 30, "b")["hotkey"].to_pylist() == ["b"] * 3
    totals = lake.query("SELECT sum(verdicts)::BIGINT AS n FROM check_totals WHERE hotkey = 'a'")
    assert totals["n"].to_pylist() == [9]


def test_named_queries_answer_below_a_folder_that_looks_like_a_window(tmp_path: Path) -> None:
    tables = {}
    for name in ("plain", "window_start=5\\hotkey=x [1]"):
        lake = Lake(tmp_path / name / "lake")
        for window in WINDOWS:
            for dataset in ("verdicts", "faults", "scores", "uploads", "rollouts"):
                lake.write(dataset, window, "hk", rows_of(dataset, window, 2))
        lake.compact(before=DAY, grace_seconds=0)
        tables[name] = {key: lake.query(one.sql) for key, one in named_queries().items()}
    plain, nasty = tables.values()
    assert plain.keys() == nasty.keys()
    assert all(plain[name].equals(nasty[name]) for name in plain)


def test_a_lake_is_the_same_wherever_it_is_moved_and_through_a_link(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "here" / "lake")
    lake.write("faults", 60, "hk", rows_of("faults", 60))
    shutil.move(tmp_path / "here", tmp_path / "window_start=5")
    (tmp_path / "link=1").symlink_to(tmp_path / "window_start=5", target_is_directory=True)
    for folder in ("window_start=5", "link=1"):
        rows = Lake(tmp_path / folder / "lake").query("SELECT window_start FROM faults")
        assert rows["window_start"].to_pylist() == [60, 60]


def test_a_relative_lake_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-node=x").mkdir()
    monkeypatch.chdir(tmp_path / "-node=x")
    lake = Lake(Path("lake"))
    lake.write("faults", 60, "hk", rows_of("faults", 60))
    monkeypatch.chdir(tmp_path)
    assert lake.query("SELECT window_start FROM faults")["window_start"].to_pylist() == [60, 60]


def test_nothing_beside_a_lake_is_in_reach_of_a_query(tmp_path: Path) -> None:
    for name, other in (("a\\b", "a[b"), ("st*r", "stXr"), ("[x]", "x")):
        Lake(tmp_path / other / "lake").write("faults", 90, "hk", rows_of("faults", 90))
        lake = Lake(tmp_path / name / "lake")
        lake.write("faults", 60, "hk", rows_of("faults", 60))
        stranger = tmp_path / other / "lake" / "faults" / "window_start=90" / "hk.parquet"
        with pytest.raises(QueryRefused):
            lake.query("SELECT * FROM read_parquet(?)", [str(stranger)])
        with pytest.raises(QueryRefused):
            lake.query("SELECT * FROM read_parquet(?)", [str(tmp_path / "*" / "lake" / "**")])


def test_the_views_of_a_bucket_do_not_read_its_folders_either() -> None:
    def views(root: str) -> str:
        return "\n".join(view_statements(root, Manifest()))

    assert "hive_partitioning = true" in views("s3://bucket/lake")
    assert "hive_partitioning = true" not in views("s3://bucket/window_start=5/lake")


@pytest.mark.parametrize(
    ("name", "said"), [("what?", "question mark"), ("\udcff", "not UTF-8 text")]
)
def test_what_duckdb_cannot_open_is_named(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=said):
        Lake(tmp_path / name / "lake")


@pytest.mark.parametrize("name", [name for name in NAMES if name.isprintable()])
def test_a_bucket_lies_below_any_folder(name: str, tmp_path: Path) -> None:
    bucket = open_bucket(str(tmp_path / name / "bucket"))
    bucket.put("a/b.parquet", b"rows", create=True)
    assert [info.key for info in bucket.list("a/")] == ["a/b.parquet"]
    assert bucket.get("a/b.parquet") == b"rows"
    assert (tmp_path / name / "bucket" / "a" / "b.parquet").read_bytes() == b"rows"


@pytest.mark.parametrize("name", ["group=5", "rollout_group=7", "window_start=5/hotkey=x", "a\\b"])
def test_a_spool_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / name, 30, "5Grw", "identity")
    row = {field.name: None for field in GROUP_SCHEMA} | {"rollout_group": 3}
    rows = pa.RecordBatch.from_pylist([row] * ROLLOUTS_PER_GROUP, schema=GROUP_SCHEMA)
    spool.add(rows)
    assert spool.read(3).equals(rows)
