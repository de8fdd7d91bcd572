"""Where a gold answer stands in a worked solution (grail-protocol §12.3)."""

import pytest

from windrow.environments.gsm8k import grade, task


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        ("so\n#### 7", "7"),
        ("so\n####7", "7"),
        ("so\n####\n7", "7"),
        ("so\n####\r\n7\r\n", "7"),
        ("so\n####\n\n \t 7  \n8", "7"),
        ("so\n####\u00a0\u20287\n", "7"),
        ("so\n#### 7 apples\n8", "7 apples"),
        ("#### 1\nso\n####\n1,756", "1,756"),
        ("so\n#### 5\n####", "5"),
        ("so 12\n####", "12"),
        ("####", "####"),
        ("so\n#### $572", "$572"),
        ("the total is 1,250 dollars", "1250"),
        ("first 3\nthen 4.5\n", "4.5"),
        ("no number\n\n last line \n", "last line"),
        ("", ""),
    ],
)
def test_gold_answers(solution: str, gold: str) -> None:
    problem = task({"question": "How many?", "answer": solution}, "train", 0)
    assert problem.answer == gold
    if gold == "7":
        graded = grade(problem, ["</end_working_out><SOLUTION>7</SOLUTION>"], "instructed")[0]
        assert graded.success
