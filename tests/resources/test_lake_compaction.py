"""Compaction: fewer files, the same rows, whoever reads or writes meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from tests.support.lake_rows import rows_of
from tests.support.processes import ENVIRONMENT, run_together
from windrow.resources.warehouse import compaction as lake_compaction
from windrow.resources.warehouse import files as lake_files
from windrow.resources.warehouse.catalogue import select
from windrow.resources.warehouse.files import LakeFileDamaged, LakeFileExists
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.manifest import Manifest, to_ranges, without

DAY = 240 * 30
ROWS = "SELECT * FROM faults ORDER BY window_start, hotkey, reason"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def fill(lake: Lake, windows: range, names: tuple[str, ...] = ("a", "b")) -> None:
    for window in windows:
        for name in names:
            lake.write("faults", window, name, rows_of("faults", window, hotkey=name, reason="r"))


def small(lake: Lake) -> int:
    return len(list(lake.root.glob("faults/window_start=[0-9]*/*.parquet")))


def merged(lake: Lake) -> list[Path]:
    return sorted(lake.root.glob("faults/compacted/*.parquet"))


def test_many_files_become_one_and_every_row_stays(lake: Lake) -> None:
    fill(lake, range(DAY, DAY + 600, 30))
    before = lake.query(ROWS)
    one_window = lake.read("faults", DAY + 60)
    done = lake.compact(before=2 * DAY, grace_seconds=0)
    assert [(c.dataset, c.first_window, c.files, c.rows) for c in done] == [("faults", DAY, 40, 80)]
    assert small(lake) == 0
    assert len(merged(lake)) == 1
    assert not list(lake.root.glob("faults/window_start=[0-9]*"))
    assert lake.query(ROWS).equals(before)
    assert lake.read("faults", DAY + 60).equals(one_window)
    assert lake.names("faults", DAY + 60) == ["a", "b"]
    assert lake.read("faults", DAY + 60, "b")["hotkey"].to_pylist() == ["b", "b"]
    assert not lake.exists("faults", DAY + 600)


def test_a_day_that_is_not_over_is_left_alone(lake: Lake) -> None:
    fill(lake, range(DAY, DAY + 90, 30))
    assert lake.compact(before=2 * DAY - 30, grace_seconds=0) == []
    assert small(lake) == 6


def test_compacting_again_changes_nothing(lake: Lake) -> None:
    fill(lake, range(0, 90, 30))
    lake.compact(before=DAY, grace_seconds=0)
    state = (Manifest.load(lake.root), merged(lake), lake.catalogue.stat().st_ino)
    assert lake.compact(before=DAY, grace_seconds=0) == []
    assert (Manifest.load(lake.root), merged(lake), lake.catalogue.stat().st_ino) == state


def test_days_and_datasets_are_merged_apart(lake: Lake) -> None:
    fill(lake, range(DAY - 60, DAY + 60, 30))
    for window in (0, 30):
        lake.write("uploads", window, "hk", rows_of("uploads", window))
    done = lake.compact(before=2 * DAY)
    assert [(c.dataset, c.first_window) for c in done] == [
        ("uploads", 0),
        ("faults", 0),
        ("faults", DAY),
    ]


def test_late_windows_join_the_merged_file(lake: Lake) -> None:
    fill(lake, range(0, 90, 30))
    lake.compact(before=DAY, grace_seconds=0)
    fill(lake, range(300, 360, 30))
    before = lake.query(ROWS)
    assert before.num_rows == 20
    assert len(lake.compact(before=DAY, grace_seconds=0)) == 1
    assert lake.query(ROWS).equals(before)
    assert (small(lake), len(merged(lake))) == (0, 1)


def test_a_lists_of_tokens_survive(lake: Lake) -> None:
    for window in (0, 30):
        tokens = list(range(window, window + 5))
        lake.write("rollouts", window, "hk", rows_of("rollouts", window, 3000, tokens=tokens))
    before = lake.query("SELECT * FROM rollouts ORDER BY window_start")
    lake.compact(before=DAY, grace_seconds=0)
    assert lake.query("SELECT * FROM rollouts ORDER BY window_start").equals(before)
    assert lake.read("rollouts", 30)["tokens"][2999].as_py() == [30, 31, 32, 33, 34]


def test_a_merged_window_can_still_be_replaced(lake: Lake) -> None:
    fill(lake, range(0, 120, 30))
    lake.compact(before=DAY)
    with pytest.raises(LakeFileExists):
        lake.write("faults", 60, "a", rows_of("faults", 60))
    for turn in ("new", "newer"):
        rows = rows_of("faults", 60, 5, hotkey="a", reason=turn)
        lake.write("faults", 60, "a", rows, replace=True)
        assert lake.read("faults", 60, "a").equals(rows)
    lake.write("faults", 30, "c", rows_of("faults", 30, 1, hotkey="c"))
    expected = {(0, "a"): 2, (0, "b"): 2, (30, "a"): 2, (30, "b"): 2, (30, "c"): 1}
    expected |= {(60, "a"): 5, (60, "b"): 2, (90, "a"): 2, (90, "b"): 2}
    for grace_seconds in (600, 0, 0):
        counts = lake.query("SELECT window_start, hotkey, count(*) n FROM faults GROUP BY ALL")
        assert {(r["window_start"], r["hotkey"]): r["n"] for r in counts.to_pylist()} == expected
        assert lake.read("faults", 60).num_rows == 7
        lake.compact(before=DAY, grace_seconds=grace_seconds)
    assert (small(lake), len(merged(lake))) == (0, 1)


def test_replacing_the_last_merged_window_empties_the_merged_file(lake: Lake) -> None:
    fill(lake, range(0, 30, 30))
    lake.compact(before=DAY, grace_seconds=0)
    lake.write("faults", 0, "a", rows_of("faults", 0, 1), replace=True)
    assert lake.query(ROWS).num_rows == 3
    assert Manifest.load(lake.root).files("faults") == ()
    lake.compact(before=30, grace_seconds=0)
    assert merged(lake) == []
    assert lake.query(ROWS).num_rows == 3


def test_what_was_merged_stays_for_those_who_read_it(lake: Lake) -> None:
    fill(lake, range(0, 90, 30))
    with duckdb.connect(str(lake.catalogue), read_only=True) as opened_before:
        lake.compact(before=DAY)
        assert len(opened_before.execute(ROWS).fetchall()) == 12
        assert small(lake) == 6
        assert lake.query(ROWS).num_rows == 12
        lake.compact(before=DAY, grace_seconds=0)
        with pytest.raises(duckdb.IOException, match="generations"):
            opened_before.execute(ROWS)
    with duckdb.connect(str(lake.catalogue), read_only=True) as opened_after:
        assert len(opened_after.execute(ROWS).fetchall()) == 12


def test_a_window_of_a_merged_file_is_found_by_its_statistics(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_files, "ROW_GROUP_ROWS", 64)
    for window in range(0, 30 * 40, 30):
        lake.write("faults", window, "hk", rows_of("faults", window, 64))
    lake.compact(before=DAY, grace_seconds=0)
    (path,) = merged(lake)
    with duckdb.connect() as connection:
        groups = connection.execute(
            "SELECT count(*) FROM parquet_metadata(?) WHERE path_in_schema = 'window_start' "
            "AND stats_min_value::BIGINT <= 600 AND stats_max_value::BIGINT >= 600",
            [str(path)],
        ).fetchall()
    assert groups == [(1,)]


def test_a_file_written_during_the_merge_is_not_lost(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer replaces one file and adds another right before the switch."""
    fill(lake, range(0, 90, 30))
    merge, turns = lake_compaction._merge, []

    def merge_then_write(*arguments: object) -> object:
        parts = merge(*arguments)  # type: ignore[arg-type]
        if not turns:
            turns.append("written")
            lake.write("faults", 30, "a", rows_of("faults", 30, 7, hotkey="a"), replace=True)
            lake.write("faults", 30, "late", rows_of("faults", 30, 1, hotkey="late"))
        return parts

    monkeypatch.setattr(lake_compaction, "_merge", merge_then_write)
    lake.compact(before=DAY, grace_seconds=0)
    assert lake.query(ROWS).num_rows == 12 - 2 + 7 + 1
    assert lake.read("faults", 30, "late").num_rows == 1
    assert small(lake) == 0


@pytest.mark.parametrize("stage", ["_merge", "_switch", "publish", "_sweep"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_stage_loses_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, stage: str, moment: str
) -> None:
    class Crash(BaseException):
        pass

    real = getattr(lake_compaction, stage)

    def crash(*arguments: object, **options: object) -> None:
        if moment == "after":
            real(*arguments, **options)
        raise Crash

    fill(lake, range(0, 90, 30))
    before = lake.query(ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(lake_compaction, stage, crash)
        with pytest.raises(Crash):
            lake.compact(before=DAY, grace_seconds=0)
    assert Lake(lake.root).query(ROWS).equals(before)
    with duckdb.connect(str(lake.catalogue), read_only=True) as connection:
        assert connection.execute(ROWS).to_arrow_table().equals(before)
    assert lake.read("faults", 60).num_rows == 4
    lake.compact(before=DAY, grace_seconds=0)
    assert lake.query(ROWS).equals(before)
    assert (small(lake), len(merged(lake))) == (0, 1)


BUSY = """
import sys, time
from pathlib import Path
from tests.support.lake_rows import rows_of
from windrow.resources.warehouse.lake import Lake

number, lake, until = int(sys.argv[1]), Lake(Path(sys.argv[2])), time.time() + float(sys.argv[3])
DAY = 240 * 30
turns = 0
while time.time() < until:
    turns += 1
    if number == 0:
        # Compacts under everyone's feet, with no grace at all.
        lake.compact(before=DAY, grace_seconds=0)
    elif number == 1:
        window = 30 * (turns % 12)
        lake.write("faults", window, "a", rows_of("faults", window, 5, hotkey="a"), replace=True)
    elif number == 2:
        counts = lake.query("SELECT window_start, count(*) AS n FROM faults GROUP BY ALL")
        assert sorted(counts["window_start"].to_pylist()) == list(range(0, 360, 30)), counts
        assert set(counts["n"].to_pylist()) == {10}, counts
    else:
        for window in range(0, 360, 30):
            assert lake.read("faults", window).num_rows == 10
print(turns)
"""


def test_readers_see_every_row_once_while_others_compact_and_replace(lake: Lake) -> None:
    for window in range(0, 360, 30):
        for name in ("a", "b"):
            lake.write("faults", window, name, rows_of("faults", window, 5, hotkey=name))
    turns = run_together(BUSY, 4, lake.root, 6.0)
    assert all(int(count) > 1 for count in turns)
    lake.compact(before=DAY, grace_seconds=0)
    assert lake.query(ROWS).num_rows == 120


def test_a_query_looks_again_where_its_catalogue_has_just_been_replaced(
    lake: Lake, tmp_path: Path
) -> None:
    fill(lake, range(0, 60, 30))
    before = lake.query(ROWS)
    old = shutil.copy(lake.catalogue, tmp_path / "old.duckdb")
    lake.compact(before=DAY, grace_seconds=0)
    opened: list[Path] = []

    def connect() -> duckdb.DuckDBPyConnection:
        opened.append(lake.catalogue if opened else old)
        connection = duckdb.connect()
        connection.execute(f"ATTACH '{opened[-1]}' AS lake (READ_ONLY)")
        connection.execute("USE lake")
        return connection

    assert select(connect, ROWS, []).equals(before)
    assert len(opened) == 2


def test_a_compaction_killed_at_any_moment_loses_nothing(lake: Lake) -> None:
    script = """
import sys
from pathlib import Path
from tests.support.lake_rows import rows_of
from windrow.resources.warehouse.lake import Lake

lake = Lake(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    lake.compact(before=240 * 30, grace_seconds=0)
    for window in (0, 60):
        rows = rows_of("faults", window, hotkey="a", reason="r")
        lake.write("faults", window, "a", rows, replace=True)
"""
    fill(lake, range(0, 150, 30))
    before = lake.query(ROWS)
    for delay in (0.02, 0.11, 0.23, 0.37, 0.7):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(lake.root)], stdout=subprocess.PIPE, env=ENVIRONMENT
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert lake.query(ROWS).equals(before)
        assert [lake.read("faults", w).num_rows for w in range(0, 150, 30)] == [4] * 5
    lake.compact(before=DAY, grace_seconds=0)
    assert lake.query(ROWS).equals(before)


def test_a_damaged_manifest_is_named(lake: Lake) -> None:
    fill(lake, range(0, 60, 30))
    lake.compact(before=DAY)
    manifest = lake.root / "manifest.json"
    for text in ("", "{", "[]", manifest.read_text().replace("faults/compacted", "../compacted")):
        manifest.write_text(text)
        with pytest.raises(LakeFileDamaged, match=r"manifest\.json"):
            lake.read("faults", 30)


def test_ranges_hold_their_windows_and_no_others() -> None:
    assert to_ranges([60, 0, 30, 150, 30]) == ((0, 60), (150, 150))
    assert without(((0, 60), (150, 150)), 30) == ((0, 0), (60, 60), (150, 150))
    assert without(((30, 30),), 30) == ()


def test_rows_keep_their_types(lake: Lake) -> None:
    fill(lake, range(0, 60, 30))
    lake.compact(before=DAY, grace_seconds=0)
    table = lake.query("SELECT * FROM faults")
    assert table.schema.field("window_start").type == pa.int64()
    assert table.schema.equals(lake.read("faults", 0).schema)
