"""The warehouse benchmark, on a lake small enough for a test: every named query has an answer."""

from pathlib import Path

from benchmarks.warehouse import make_lake, measure
from windrow.pipelines.commands.named_queries import named_queries


def test_every_named_query_answers_from_a_synthetic_lake(tmp_path: Path) -> None:
    assert measure(make_lake(tmp_path / "lake", 200_000)).keys() == named_queries().keys()
