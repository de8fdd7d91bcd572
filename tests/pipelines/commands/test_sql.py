"""`windrow sql`: named queries, lists, and rows as JSON and CSV."""

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.lake_rows import rows_of
from windrow.pipelines.cli import app
from windrow.pipelines.commands.named_queries import UnknownQuery, named_queries
from windrow.resources.storage.s3_access import S3AccessMissing
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS

WINDOW = 7200


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The lake the command finds, on a terminal wide enough for any table."""
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path))
    monkeypatch.setattr("windrow.pipelines.cli.out._width", 300)
    return Lake(tmp_path / "lake")


def windrow_sql(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["sql", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_named_query_runs_by_its_name(lake: Lake) -> None:
    lake.write("faults", WINDOW, "hk", rows_of("faults", WINDOW, 3, reason="NoBlock"))
    printed = windrow_sql("drop_reasons")
    assert "NoBlock" in printed
    assert "last_detail" in printed


def test_a_list_names_every_table_and_query_with_its_meaning(lake: Lake) -> None:
    for printed in (windrow_sql("--list"), windrow_sql()):
        for dataset in DATASETS.values():
            assert dataset.description in printed
        for query in named_queries().values():
            assert query.name in printed
            assert query.answers in printed


def test_a_list_of_one_name_explains_its_columns(lake: Lake) -> None:
    assert DATASETS["uploads"].columns["margin_seconds"] in windrow_sql("--list", "uploads")
    assert "drop_reasons" in windrow_sql("--list", "drop_reasons")
    assert "what happened then and what to do" in windrow_sql("drop_reasons", "--list")


@pytest.mark.parametrize("arguments", [["near_mises"], ["--list", "near_mises"]])
def test_an_unknown_name_is_refused_with_the_closest(lake: Lake, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["sql", *arguments])
    assert isinstance(result.exception, UnknownQuery)
    assert "near_misses" in str(result.exception)


QUERY = (
    "SELECT 1 AS a, 'x,\"y' AS b, NULL AS c, 'NaN'::FLOAT AS d, [1, 2] AS e,"
    " '\\x00\\xFF'::BLOB AS f, TIMESTAMP '2024-01-02 03:04:05' AS g,"
    " {'h': [1e400]} AS i, sum(7::BIGINT) OVER () AS j, TIME '01:02:03' AS k FROM range(250)"
)


def test_json_has_every_row_and_every_type(lake: Lake) -> None:
    rows = json.loads(windrow_sql(QUERY, "--json"))
    assert len(rows) == 250
    assert rows[0] == {
        "a": 1, "b": 'x,"y', "c": None, "d": "nan", "e": [1, 2], "f": "00ff",
        "g": "2024-01-02T03:04:05", "i": {"h": ["inf"]}, "j": 1750, "k": "01:02:03",
    }  # fmt: skip
    assert json.loads(windrow_sql("drop_reasons", "--json")) == []


def test_csv_has_every_row_under_its_headings(lake: Lake) -> None:
    rows = list(csv.reader(io.StringIO(windrow_sql(QUERY, "--csv"))))
    assert len(rows) == 251
    assert rows[0] == list("abcdefgijk")
    assert rows[1][:4] == ["1", 'x,"y', "", "nan"]
    assert rows[1][5:7] == ["00ff", "2024-01-02T03:04:05"]


def test_json_and_csv_exclude_each_other(lake: Lake) -> None:
    result = CliRunner().invoke(app, ["sql", "SELECT 1", "--json", "--csv"])
    assert result.exit_code == 2


def test_text_of_strangers_cannot_steer_the_terminal(lake: Lake) -> None:
    reason = "[/bold][link=x]\x1b]0;title\x07"
    lake.write("verdicts", WINDOW, "hk", rows_of("verdicts", WINDOW, 1, reason=reason))
    printed = windrow_sql("SELECT reason FROM verdicts")
    assert "[/bold][link=x]" in printed
    assert "\x1b" not in printed
    assert "\x07" not in printed


def test_a_lake_in_a_bucket_needs_keys(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    result = CliRunner().invoke(app, ["sql", "drop_reasons", "--lake", "s3://bucket/lake"])
    assert isinstance(result.exception, S3AccessMissing)
    assert "AWS_ACCESS_KEY_ID" in str(result.exception)
