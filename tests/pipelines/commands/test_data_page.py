"""docs/data.md says what the datasets and queries are today."""

from pathlib import Path

from windrow.pipelines.commands.data_page import MARK, updated

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def test_the_committed_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == updated(page), "run: python -m windrow.pipelines.commands.data_page docs/data.md"


def test_what_is_above_the_mark_stays() -> None:
    assert updated(f"# By hand\n{MARK}old").startswith(f"# By hand\n{MARK}\n## Tables\n")
    assert updated("# By hand\n") == updated(f"# By hand\n{MARK}old")
