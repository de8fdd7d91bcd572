from collections.abc import Sequence

import pytest

from windrow.environments.competition_math import answers_equal, cheaply_equal, first_boxed


class Asked:
    """Algebra that finds everything equal, and remembers what it was asked."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        self.pairs += pairs
        return [True] * len(pairs)


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        ("\\dfrac{1}{2}", "\\frac{1}{2}", True),
        ("", "1", False),
        ("3.0", "3", True),
        ("4", "3", False),
        ("nan", "1", False),
        ("\\frac{1}{2}", "1/2", False),
        ("1/2", "2/4", None),
        ("'\\\\'", "1", None),
        ("1#\\", "2-1", None),
        ("1+" * 600 + "1", "601", None),
    ],
)
def test_text_and_floats_decide_what_they_can(left: str, right: str, verdict: bool | None) -> None:
    assert cheaply_equal(left, right) is verdict


def test_algebra_is_asked_once_for_equal_answers() -> None:
    asked = Asked()
    verdicts = answers_equal(["x + 1", "1", "x+1", "2", "y"], "2", asked)
    assert verdicts == [True, False, True, True, True]
    assert asked.pairs == [("x+1", "2"), ("y", "2")]


def test_an_answer_too_long_for_algebra_is_left_open() -> None:
    asked = Asked()
    long = "1+" * 600 + "1"
    assert answers_equal([long, "x"], "601", asked) == [None, True]
    assert asked.pairs == [("x", "601")]
    assert answers_equal([long], long, asked) == [True]


def test_a_box_may_hold_boxes() -> None:
    assert first_boxed("a \\boxed{\\boxed{1}+{2}} \\boxed{3}") == "\\boxed{1}+{2}"
