"""Summaries: what is worked out at compaction is what the rows say, whatever happens to them."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.lake_rows import rows_of
from windrow.resources.warehouse import catalogue as lake_catalogue
from windrow.resources.warehouse import summaries as lake_summaries
from windrow.resources.warehouse.files import LakeError
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.manifest import MANIFEST
from windrow.resources.warehouse.schema import DATASETS
from windrow.resources.warehouse.summaries import SUMMARIES

DAY = 240 * 30
TOTALS = "SELECT window_start, hotkey, verdicts, margin_sum FROM check_totals ORDER BY ALL"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two windows of a day that is over, and one of the next."""
    lake = Lake(tmp_path / "lake")
    for window in (0, 30, DAY):
        write(lake, window, "a", 2, 0.5)
        write(lake, window, "b", 1, 0.25)
    return lake


def write(lake: Lake, window: int, hotkey: str, count: int, margin: float) -> None:
    rows = rows_of("verdicts", window, count, hotkey=hotkey, check="proof", margin=margin)
    lake.write("verdicts", window, hotkey, rows, replace=True)


def totals(lake: Lake) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in lake.query(TOTALS).to_pylist()]


def summary_files(lake: Lake) -> list[Path]:
    return sorted(lake.root.glob("verdicts/compacted/*.check_totals-*.parquet"))


@pytest.mark.parametrize("name", SUMMARIES)
def test_an_empty_lake_has_every_summary_with_its_columns(tmp_path: Path, name: str) -> None:
    found = Lake(tmp_path / "lake").query(f"SELECT * FROM {name}")
    assert found.num_rows == 0
    assert found.schema.equals(SUMMARIES[name].rows.schema)


def test_rows_are_summarised_before_and_after_compaction(lake: Lake) -> None:
    expected = [(w, *rest) for w in (0, 30, DAY) for rest in (("a", 2, 1.0), ("b", 1, 0.25))]
    assert totals(lake) == expected
    lake.compact(before=DAY, grace_seconds=0)
    assert len(summary_files(lake)) == 1
    assert totals(lake) == expected


def test_a_merged_day_is_read_from_its_summary_alone(lake: Lake) -> None:
    lake.compact(before=DAY, grace_seconds=0)
    (merged,) = lake.root.glob("verdicts/compacted/*[0-9].parquet")
    merged.unlink()
    assert len(totals(lake)) == 6


def test_a_window_written_again_leaves_the_summary(lake: Lake) -> None:
    lake.compact(before=DAY, grace_seconds=0)
    write(lake, 30, "a", 4, 1.0)
    assert totals(lake)[2:4] == [(30, "a", 4, 4.0), (30, "b", 1, 0.25)]
    lake.compact(before=DAY, grace_seconds=0)
    assert totals(lake)[2:4] == [(30, "a", 4, 4.0), (30, "b", 1, 0.25)]
    assert len(totals(lake)) == 6
    assert len(summary_files(lake)) == 1


def test_days_merged_without_summaries_are_summarised_from_their_rows(lake: Lake) -> None:
    expected = totals(lake)
    lake.compact(before=DAY, grace_seconds=0)
    manifest = json.loads((lake.root / MANIFEST).read_text())
    del manifest["compacted"]["verdicts"][0]["summaries"]
    (lake.root / MANIFEST).write_text(json.dumps(manifest))
    (lake.root / "catalogue.duckdb").unlink()
    assert totals(Lake(lake.root)) == expected


def test_a_changed_summary_is_made_from_rows_until_the_day_is_merged_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.compact(before=DAY, grace_seconds=0)
    old = SUMMARIES["check_totals"]
    changed = dataclasses.replace(old, select=old.select.replace("sum(margin)", "-sum(margin)"))
    for room in (lake_summaries, lake_catalogue):
        monkeypatch.setattr(room, "SUMMARIES", {**SUMMARIES, "check_totals": changed})
    assert [row[3] for row in totals(Lake(lake.root))] == [-1.0, -0.25] * 3


def test_rows_a_summary_cannot_be_made_of_keep_the_day_as_it_is(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = dataclasses.replace(SUMMARIES["check_totals"], select="SELECT 1 / 'x' FROM {rows}")
    monkeypatch.setattr(lake_summaries, "SUMMARIES", {"check_totals": broken})
    with pytest.raises(LakeError, match="check_totals"):
        lake.compact(before=DAY, grace_seconds=0)
    assert lake.query("SELECT count(*) AS n FROM verdicts")["n"].to_pylist() == [9]
    monkeypatch.undo()
    lake.compact(before=DAY, grace_seconds=0)
    assert len(totals(lake)) == 6


def test_repeated_completions_keep_to_their_window(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    schema = SUMMARIES["repeated_completions"].rows.schema
    for window in (0, 30):
        for hotkey, digests in (("a", "ppq"), ("b", "pr" if window else "s")):
            rows = [
                {"window_start": window, "hotkey": hotkey, "digest": letter.encode() * 32}
                for letter in digests
            ]
            table = pa.Table.from_pylist(rows, schema=DATASETS["completions"].schema)
            lake.write("completions", window, hotkey, table)
    expected = pa.Table.from_pylist(
        [
            {"window_start": 0, "digest": b"p" * 32, "hotkey": "a", "copies": 2},
            {"window_start": 30, "digest": b"p" * 32, "hotkey": "a", "copies": 2},
            {"window_start": 30, "digest": b"p" * 32, "hotkey": "b", "copies": 1},
        ],
        schema=schema,
    )
    query = "SELECT * FROM repeated_completions ORDER BY ALL"
    assert lake.query(query).equals(expected)
    lake.compact(before=DAY, grace_seconds=0)
    assert lake.query(query).equals(expected)
